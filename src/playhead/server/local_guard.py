"""Nobody but this machine's own pages and programs, while nobody has to log in.

A loopback address keeps other machines out, but not the pages that the user's browser has open: they can send requests
here (cross-site), or make their own name point here (DNS rebinding). Sources: Fetch, section 3.1 (Origin);
W3C Fetch Metadata; RFC 9110, section 15.5.20 (421).

    Host ............. a loopback name or address, with the port that the request came in at; a Unix socket has no
                       port, and its file's mode says who may come in
    Origin ........... when there is one, the same as Host, or one that was named (CORS); never "null"
    Sec-Fetch-Site ... when there is one, same-origin or none; others may only lead a person here by a link, unless
                       their Origin was named
"""

import ipaddress
import re
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from playhead.asgi import Problem
from playhead.errors import PlayheadError

HTTP_PORT = 80
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::([0-9]{1,5}))?", re.IGNORECASE)

Address = tuple[str, int]


class HostRefused(PlayheadError):
    code, http_status, grpc_status = "host-refused", 421, "PERMISSION_DENIED"


class OriginRefused(PlayheadError):
    code, http_status, grpc_status = "origin-refused", 403, "PERMISSION_DENIED"


class LocalGuard:
    """ASGI middleware.

    Args:
        allowed_hosts: further Host values, such as ``localhost:9000``.
        origins: of other sites whose pages are welcome, as browsers send them: ``https://app.example``.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str] = (), origins: Collection[str] = ()) -> None:
        self.app = app
        self._origins = frozenset(origins)
        self._allowed = {address for host in allowed_hosts if (address := parse_host(host))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await Problem(refusal)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _refusal(self, scope: Scope) -> PlayheadError | None:
        hosts = _values(scope, b"host")
        host = parse_host(hosts[0]) if len(hosts) == 1 else None
        if host is None or not (host in self._allowed or self._is_here(host, scope)):
            return HostRefused(
                "without authentication this server answers only to this machine's own names, such as localhost, with"
                " its own port; PLAYHEAD_ALLOWED_HOSTS adds others"
            )
        origins = _values(scope, b"origin")
        if len(origins) == 1 and origins[0] in self._origins:
            return None
        if any(_origin(value) != host for value in origins) or not _is_invited(scope):
            return OriginRefused(
                "without authentication this server takes no requests from other sites' pages; PLAYHEAD_CORS_ORIGINS"
                " names exceptions"
            )
        return None

    @staticmethod
    def _is_here(host: Address, scope: Scope) -> bool:
        name, port = host
        server = scope.get("server")
        # ASGI: the port is None on a Unix socket
        return is_loopback(name) and server is not None and server[1] in (port, None)


def is_loopback(name: str) -> bool:
    """Whether a host name or address surely means this machine."""
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def parse_host(host: str) -> Address | None:
    """A Host value as name and port; None when it is none."""
    match = _HOST.fullmatch(host)
    return (match[1].lower(), int(match[2] or HTTP_PORT)) if match else None


def _origin(value: str) -> Address | None:
    try:
        parts = urlsplit(value)
        default = {"http": HTTP_PORT, "https": 443}.get(parts.scheme)
        address = parse_host(parts.netloc)
        if default is None or address is None or value != f"{parts.scheme}://{parts.netloc}":
            return None
        return address[0], parts.port or default
    except ValueError:
        return None


def _is_invited(scope: Scope) -> bool:
    if all(site in ("same-origin", "none") for site in _values(scope, b"sec-fetch-site")):
        return True
    # A link on another page is fine: the person sees where it leads, the other page sees nothing.
    navigates = _values(scope, b"sec-fetch-mode") == ["navigate"] and _values(scope, b"sec-fetch-dest") == ["document"]
    return navigates and scope.get("method") in ("GET", "HEAD")


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
