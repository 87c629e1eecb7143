"""``/docs``: the OpenAPI document as one plain page. FastAPI's own page loads its scripts from a CDN; this has none."""

import re
from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from playhead.server.page import HEADERS

router = APIRouter()


@router.get("/docs")
async def docs(request: Request) -> Response:
    return HTMLResponse(render(request.app.openapi()), headers=HEADERS)


def render(openapi: dict[str, Any]) -> str:
    """An OpenAPI document as HTML. Pure."""
    info = openapi["info"]
    schemas = openapi.get("components", {}).get("schemas", {})
    body = [f"<h1>{_text(info['title'])} <small>{_text(info['version'])}</small></h1>"]
    body.append(f"<p>{_text(info['description'])}</p><p><a href='/openapi.json'>openapi.json</a></p>")
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            body += _operation(path, method, operation)
    body.append("<h2>Schemas</h2>")
    for name, schema in schemas.items():
        body += [f"<h3 id='{_text(name)}'>{_text(name)}</h3>", _paragraph(schema), *_fields(schema)]
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{_text(info['title'])} API</title><link rel='icon' href='/static/icon.svg'>"
        f"<link rel='stylesheet' href='/static/styles.css'><body class='docs'>{''.join(body)}</body></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{method.upper()} {_text(path)}</code></h2>"
    yield f"<p><strong>{_text(operation.get('summary', ''))}.</strong> {_text(operation.get('description', ''))}</p>"
    parameters = operation.get("parameters", [])
    if parameters:
        rows = [
            (p["name"], f"{p['in']}, {_type(p['schema'])}", p.get("required", False), p.get("description", ""))
            for p in parameters
        ]
        yield _table(rows)
    for content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body: {_text(content[0])}, {_type(content[1]['schema'])}</p>"
    yield "<ul>"
    for status, response in sorted(operation["responses"].items()):
        kinds = ", ".join(
            f"{_text(kind)} {_type(content.get('schema', {}))}" for kind, content in response.get("content", {}).items()
        )
        yield f"<li><code>{_text(status)}</code> {_text(response['description'])} {kinds}</li>"
    yield "</ul>"


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    required = schema.get("required", [])
    rows = [
        (name, _type(field), name in required, field.get("description", ""))
        for name, field in schema.get("properties", {}).items()
    ]
    if rows:
        yield _table(rows)
    elif "enum" in schema:
        yield f"<p>{_type(schema)}</p>"


def _table(rows: list[tuple[str, str, bool, str]]) -> str:
    lines = [
        f"<tr><td><code>{_text(name)}</code>{' *' if required else ''}<td>{kind}<td>{_text(description)}"
        for name, kind, required, description in rows
    ]
    return f"<table>{''.join(lines)}</table>"


def _type(schema: dict[str, Any]) -> str:
    """A schema's type in a few words, as HTML."""
    if "$ref" in schema:
        name = _text(schema["$ref"].rpartition("/")[2])
        return f"<a href='#{name}'>{name}</a>"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(f"<code>{_text(value)}</code>" for value in schema["enum"])
    if "const" in schema:
        return f"<code>{_text(schema['const'])}</code>"
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return _text(schema.get("format") or schema.get("type", ""))


def _paragraph(schema: dict[str, Any]) -> str:
    return f"<p>{_text(schema.get('description', ''))}</p>"


def _text(value: object) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(str(value)))
