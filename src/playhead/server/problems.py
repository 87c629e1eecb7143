"""Every error that is not the engine's, as a problem document (RFC 9457) like the engine's own.

No answer carries a traceback: what nobody expected is logged by the server and answered with a bare 500.
"""

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response


class ProblemView(BaseModel):
    """What went wrong. Errors of streams carry further members, such as `stream_id`."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:playhead:stream-not-found"])
    title: str
    status: int
    detail: str
    code: str = Field(description="The last part of `type`: decide on this, never on texts.")
    retryable: bool = Field(description="The same request may succeed later.")


MEDIA_TYPE = "application/problem+json"
CODES = {
    400: "bad-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "content-too-large",
    422: "invalid-request",
    500: "internal",
}

PROBLEMS: dict[int | str, dict[str, Any]] = {
    "default": {"model": ProblemView, "description": "A problem document (RFC 9457)."}
}


def with_problem_media_type(openapi: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with the media type that problems really have; FastAPI knows only the routes' own."""
    for path in openapi["paths"].values():
        for operation in path.values():
            content = operation["responses"].get("default", {}).get("content", {})
            if "application/json" in content:
                content[MEDIA_TYPE] = content.pop("application/json")
    return openapi


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **facts: Any) -> Response:
    code = CODES.get(status, f"http-{status}")
    body = {
        **facts,
        "type": f"urn:playhead:{code}",
        "title": code.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        "retryable": False,
    }
    headers = {"cache-control": "no-store", **(headers or {})}
    # ASCII, so that text which UTF-8 cannot carry is no further problem.
    return Response(json.dumps(body), status, headers, media_type=MEDIA_TYPE)


def install_problems(app: FastAPI) -> None:
    describe = app.openapi
    app.openapi = lambda: with_problem_media_type(describe())  # type: ignore[method-assign]
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _unexpected)


async def _refused(request: Request, error: Exception) -> Response:
    """404 for unknown paths, 405 with Allow, 413 …"""
    assert isinstance(error, HTTPException)
    detail = f"there is nothing at {request.url.path}" if error.status_code == 404 else str(error.detail)
    return problem(error.status_code, detail, dict(error.headers or {}))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # Only where and why: what was sent is not sent back.
    errors = [{"where": list(one["loc"]), "why": one["msg"]} for one in error.errors()]
    first = f"{'.'.join(map(str, errors[0]['where']))}: {errors[0]['why']}"
    if errors[0]["where"] == ["body"] and "json" not in request.headers.get("content-type", ""):
        first = "send the body as JSON, with the header content-type: application/json"
    return problem(422, first, errors=errors)


async def _unexpected(request: Request, error: Exception) -> Response:  # noqa: ARG001
    # Starlette raises the error again behind this answer, so that the server logs it.
    return problem(500, "something went wrong here that should not have; the server's log tells more")
