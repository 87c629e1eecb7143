"""``playhead serve``: the engine behind HTTP, with a chat on it.

request ids ─► local guard ─► CORS ─► encoded ids ─► routes: streams (native) · chat (template) · page, docs
                                                       └──► Chat ─► Playhead, ChatAgent

``uvicorn playhead.server:app`` serves it as well, with settings from the environment. All names here are made when they
are asked for, since a door takes a second or two to import and the command's other parts need none.
"""

import sys
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

    from playhead.server.app import create_app
    from playhead.server.settings import Settings

__all__ = ["Settings", "app", "create_app"]


def __getattr__(name: str) -> Any:
    match name:
        case "create_app":
            from playhead.server.app import create_app

            return create_app
        case "Settings":
            from playhead.server.settings import Settings

            return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Package(ModuleType):
    """``app`` is the application here, although a module of this package has the same name."""

    @cached_property
    def _application(self) -> "FastAPI":
        return self.create_app()  # type: ignore[no-any-return]

    @property
    def app(self) -> "FastAPI":
        return self._application

    @app.setter
    def app(self, _: ModuleType) -> None:
        """What importing that module sets."""


sys.modules[__name__].__class__ = _Package
