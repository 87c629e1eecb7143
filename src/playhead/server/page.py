"""The chat page: plain files, no build step, nothing from elsewhere.

/                        the page; asked for anew each time, it names the files of this version
/static/app.js           a file; browsers ask each time whether it is still the same
/static/v-<hash>/app.js  the same file, for ever: a reload of the page costs one request for itself, and its data
"""

import hashlib
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
FOR_EVER = {**HEADERS, "cache-control": "public, max-age=31536000, immutable"}


class _Files(StaticFiles):
    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(directory=STATIC)
        self._headers = headers

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers.update(self._headers)
        return response


def install_page(app: FastAPI) -> None:
    versioned = f"/static/v-{_version()}"
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    html = html.replace("{{modules}}", _preloads()).replace("/static/", f"{versioned}/")

    async def page(chat: TheChat) -> Response:
        """The model's name is all that the page is told; the rest it asks for."""
        return HTMLResponse(html.replace("{{model}}", escape(chat.model_name)), headers=HEADERS)

    app.add_api_route("/", page, include_in_schema=False)
    app.mount(versioned, _Files(FOR_EVER))
    app.mount("/static", _Files(HEADERS))


def _version() -> str:
    """Changes with any of the files."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.rglob("*.*")):
        digest.update(f"{path.relative_to(STATIC).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _preloads() -> str:
    """Links to all modules, so that the browser asks for them at once instead of one import after the other."""
    paths = sorted(path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*.js"))
    return "\n  ".join(f'<link rel="modulepreload" href="/static/{path}">' for path in paths)
