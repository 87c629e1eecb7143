"""What the person at the terminal is told when the server is ready: where it is, what it keeps, who may come in."""

import re
import socket
from collections.abc import Iterator

from playhead.server.listening import place
from playhead.server.settings import Settings

_PASSWORD = re.compile(r"(?<=://)([^/@]*?):[^/]*(?=@)|(?<=password=)[^&]*")
ONE_HOST = (
    "threads are kept on this machine only, streams are not; set PLAYHEAD_DATABASE=postgresql://… to share them too"
)


def greeting(settings: Settings, listening: socket.socket, model: str) -> Iterator[str]:
    """The lines; the last one is about access."""
    if model == "demo":
        model = "the built-in demo model (set OPENAI_API_KEY or OPENAI_BASE_URL for a real one)"
    yield f"Playhead is at {place(listening)}"
    yield f"  store     {without_password(settings.store_url)}"
    yield f"  database  {without_password(settings.database_url)}"
    yield f"  model     {model}"
    if settings.workers > 1:
        yield f"  workers   {settings.workers}"
    if settings.has_threads_on_one_host:
        yield f"  warning   {ONE_HOST}"
    if settings.unused:
        yield f"  unused    {', '.join(settings.unused)}: accepted, but this version does nothing with them"
    yield f"  access    {_access(settings)}"


def without_password(url: str) -> str:
    """A URL that may be shown."""
    return _PASSWORD.sub(lambda found: f"{found[1]}:***" if found[1] is not None else "***", url)


def _access(settings: Settings) -> str:
    who = "this user only, by the socket's file mode" if settings.uds else "reachable from this machine only"
    also = f", and from pages of {', '.join(settings.cors_origins)}" if settings.cors_origins else ""
    return f"no authentication: {who}{also}; everybody who comes in acts as one local user"
