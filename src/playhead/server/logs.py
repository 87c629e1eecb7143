"""Log lines on standard error. Those on the way to a response carry its request id (``request_ids``)."""

import logging
from contextvars import ContextVar

from playhead.server.settings import Settings

request_id: ContextVar[str | None] = ContextVar("playhead request id", default=None)

_FORMAT = "%(asctime)s %(levelname)s %(name)s%(request)s: %(message)s"


class RequestFilter(logging.Filter):
    """Gives records ``%(request)s``: the id of the request that they belong to, in brackets, or nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        current = request_id.get()
        record.request = f" [{current}]" if current else ""
        return True


def log_to_stderr(settings: Settings) -> None:
    """For the command only: embedders, and other servers, set up logging themselves."""
    handler = logging.StreamHandler()
    handler.addFilter(RequestFilter())
    several = "[%(process)d] " if settings.workers > 1 else ""
    logging.basicConfig(format=several + _FORMAT, level=logging.WARNING, handlers=[handler])
    logging.getLogger("playhead").setLevel(settings.log_level.upper())
    if settings.access_log:
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)
