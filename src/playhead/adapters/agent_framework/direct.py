"""Any ``agent.run(…, stream=True)`` as a durable stream, without the durable extension."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from typing import Any

from agent_framework import AgentSession, SupportsAgentRun

from playhead.adapters.provider_errors import ProviderError, without_secrets
from playhead.adapters.sharing import shared
from playhead.model import Draft, StreamInfo
from playhead.streams import Playhead

from . import settings
from .events import Transcript
from .sessions import AGENT, CORRELATION, session_of


async def record_agent_run(
    agent: SupportsAgentRun,
    message: Any = None,
    *,
    session: AgentSession | None = None,
    playhead: Playhead | None = None,
    run_options: Mapping[str, Any] | None = None,
    **start: Any,
) -> StreamInfo:
    """Run an agent in the background and record it as a stream; return at once.

    Args:
        message: as ``agent.run`` takes it.
        session: its id is the stream's thread, unless ``start`` names another: one run at a time.
        playhead: an open one of this event loop; when absent, one on the store of the settings is opened and kept
            for as long as the loop runs.
        run_options: more of ``agent.run``: ``options``, ``tools`` …
        start: of ``Playhead.start``: ``stream_id``, ``owner``, ``idempotency_key``, ``metadata``, ``supersede`` …
    Cancel (of the stream): the agent's stream is closed, and with it the model's request; what was said is kept in the
        stream. The session has it only when the run completed: agents add to it at their end.
    Raises: as ``Playhead.start``; TypeError.
    """
    if not callable(getattr(agent, "run", None)):
        raise TypeError(f"record_agent_run needs an agent with run(…, stream=True), not {type(agent).__name__}")
    if playhead is None:
        place = shared(settings.store_url(), settings.options())
        playhead = await place.use(place)  # nobody leaves it: it is closed with its loop
    stream_id = start.setdefault("stream_id", None) or uuid.uuid4().hex
    thread_id = None if session is None else session_of(session).key
    about = {AGENT: getattr(agent, "name", None) or type(agent).__name__, CORRELATION: stream_id}
    start = {"thread_id": thread_id, **start, "stream_id": stream_id}
    start["metadata"] = {**about, **(start.get("metadata") or {})}
    options = {**({} if session is None else {"session": session}), **(run_options or {})}
    transcript = Transcript(playhead.options.event_max_bytes)
    return await playhead.start(lambda: _said(agent, message, transcript, options), **start)


async def _said(
    agent: SupportsAgentRun, message: Any, transcript: Transcript, options: dict[str, Any]
) -> AsyncGenerator[Draft]:
    """What an agent says, as events. Raises: what the agent raises."""
    try:
        async with AsyncExitStack() as stack:
            stream: Any = agent.run(message, stream=True, **options)
            if asyncio.iscoroutine(stream):
                stream = await stream
            if (close := getattr(stream, "close", None) or getattr(stream, "aclose", None)) is not None:
                stack.push_async_callback(close)
            async for update in stream:
                for draft in transcript.add(update):
                    yield draft
            if hasattr(stream, "get_final_response"):
                for draft in transcript.finish(await stream.get_final_response()):
                    yield draft
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        if (said := without_secrets(text)) == text:
            raise
        raise ProviderError(said) from None  # providers repeat keys in their refusals
