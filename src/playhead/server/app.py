"""The application: doors put together around one Chat."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from playhead import __version__
from playhead.adapters.starlette import BareStreams, answer_errors, draining_at_stop
from playhead.server import chat_routes, docs, follow_routes, page, stream_routes, thread_routes
from playhead.server.body_limit import BodyLimit
from playhead.server.chat import Chat
from playhead.server.cors import Cors
from playhead.server.greeting import ONE_HOST
from playhead.server.local_guard import LocalGuard
from playhead.server.opening import open_chat
from playhead.server.problems import install_problems
from playhead.server.request_ids import RequestIds
from playhead.server.settings import Settings
from playhead.server.stream_ids import EncodedStreamIds

logger = logging.getLogger("playhead")

DESCRIPTION = (
    "Durable, resumable, cancellable streams for LLM responses. Follow a stream with any EventSource: it reconnects"
    " with its last cursor and misses nothing. Errors are problem documents (RFC 9457)."
)


def create_app(settings: Settings | None = None, chat: Chat | None = None) -> FastAPI:
    """The server as an ASGI application.

    Args:
        settings: from the environment when absent, so that ``uvicorn --factory playhead.server:create_app`` works.
        chat: what ``open_chat`` gave; when absent the application opens, and at its end drains and closes, its own.
    """
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if chat is not None:
            yield
            return
        if settings.has_threads_on_one_host:  # nobody is greeted here
            logger.warning(ONE_HOST)
        async with open_chat(settings) as own:
            app.state.chat = own
            async with draining_at_stop(own.playhead, settings.shutdown_grace_s):
                yield

    app = FastAPI(
        title="Playhead",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.chat = chat
    answer_errors(app)
    install_problems(app)
    app.include_router(stream_routes.router)
    app.include_router(follow_routes.router)
    for router in (chat_routes.router, thread_routes.router):
        app.include_router(router, prefix="/v1")
        app.include_router(router, include_in_schema=False)
    app.include_router(stream_routes.health)
    app.include_router(docs.router, include_in_schema=False)
    page.install_page(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(EncodedStreamIds)
    app.add_middleware(BareStreams)
    if settings.cors_origins:
        app.add_middleware(Cors, origins=settings.cors_origins)
    app.add_middleware(LocalGuard, allowed_hosts=settings.allowed_hosts, origins=settings.cors_origins)
    app.add_middleware(RequestIds)
    return app
