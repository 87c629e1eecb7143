"""Which pages of other sites may use the server from a browser: those of the origins that the settings name.

The local guard lets them in (``local_guard``); this tells their browser that it may show them the answers. Source:
Fetch, section 3.2 (CORS). No cookies are involved, so no credentials are allowed.
"""

from collections.abc import Collection

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE")
SENT = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Request-ID")
SHOWN = ("Link", "Playhead-Tail", "Retry-After", "X-Request-ID")


class Cors(CORSMiddleware):
    """ASGI middleware. Outside ``BareStreams``, so that streams carry it as well."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=SENT,
            expose_headers=SHOWN,
            allow_private_network=True,  # a page from the internet, a server on this machine: that is the use
        )
