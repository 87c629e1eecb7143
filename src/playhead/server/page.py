"""The chat page: plain files, no build step, nothing from elsewhere."""

from html import escape
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from playhead.server.access import TheChat

STATIC = Path(__file__).parent / "static"
# All text reaches the page through textContent; should that ever fail, nothing may run or leave.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


class _Files(StaticFiles):
    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers.update(HEADERS)
        return response


def install_page(app: FastAPI) -> None:
    html = (STATIC / "index.html").read_text(encoding="utf-8")

    async def page(chat: TheChat) -> Response:
        """The model's name is all that the page is told; the rest it asks for."""
        return HTMLResponse(html.replace("{{model}}", escape(chat.model_name)), headers=HEADERS)

    app.add_api_route("/", page, include_in_schema=False)
    app.mount("/static", _Files(directory=STATIC))
