"""Runs of a graph: as parts, and as a stream."""

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel
from langgraph.types import Command, StreamMode

from playhead.adapters.provider_errors import ProviderError, without_secrets
from playhead.model import Draft, OutcomeKind, Status, StreamInfo
from playhead.store import Query
from playhead.streams import Playhead

from .partial import Graph, Said, keep_partial, latest
from .parts import MESSAGES, GraphPart, part_of, recorded

MODES: tuple[StreamMode, ...] = ("messages", "updates", "custom")
_METADATA = "langgraph"
_STEPS: StreamMode = "checkpoints"
_KEEP_S = 3.0
_STORED_S = 10.0
_LOOK_AGAIN_S = 0.005

logger = logging.getLogger("playhead")


async def stream_graph(
    graph: Graph,
    input: Any,  # noqa: A002 - LangGraph's word
    config: RunnableConfig | None = None,
    *,
    stream_mode: StreamMode | Sequence[StreamMode] = MODES,
    subgraphs: bool = True,
    keeps_partial: bool = True,
    **options: Any,
) -> AsyncGenerator[GraphPart]:
    """Run a graph and yield what it yields, as parts. For a source of one's own; ``start_graph`` does the rest.

    Args:
        subgraphs: what happens in subgraphs too.
        keeps_partial: see ``start_graph``.
        options: more of ``graph.astream``.
    Cancel: close the generator or cancel the task: graph, subgraphs and their requests are stopped, and what was said
        is kept, before it returns.
    Raises: what the graph raises.
    """
    modes = [stream_mode] if isinstance(stream_mode, str) else list(stream_mode)
    said = Said()
    run = cast(AsyncGenerator[Any], graph.astream(input, config, stream_mode=modes, subgraphs=subgraphs, **options))
    try:
        async with aclosing(run):
            async for item in run:
                ns, mode, data = item if subgraphs else ((), *item)
                part = GraphPart(mode, tuple(ns), data)
                if keeps_partial:
                    said.add(part)
                yield part
    except (asyncio.CancelledError, GeneratorExit):
        if keeps_partial and config is not None:
            await _keep(graph, config, said)
        raise


async def start_graph(
    playhead: Playhead,
    graph: Graph,
    input: Any,  # noqa: A002 - LangGraph's word
    config: RunnableConfig | None = None,
    stream_mode: StreamMode | Sequence[StreamMode] = MODES,
    *,
    subgraphs: bool = True,
    keeps_partial: bool = True,
    graph_options: dict[str, Any] | None = None,
    **start: Any,
) -> StreamInfo:
    """Run a graph in the background and record it as a stream; return at once.

    Args:
        input: as ``graph.astream`` takes it: an input, None or a ``Command`` to go on.
        config: its ``thread_id`` is the stream's thread too, unless ``start`` names another: one run at a time.
        stream_mode: what to record. ``values`` records the whole state after each step: mind ``event_max_bytes``.
        subgraphs: record what happens in subgraphs too; each event tells its ``ns``.
        keeps_partial: a run that is stopped (cancel, shutdown) leaves what it said in the thread's state, and an
            answer to each open tool call. A run that failed or died can still be taken up again (input None); the
            next run that begins with a new input first keeps what it had said. For that nothing of a step is recorded
            before the checkpoint it began from is stored, which reads the state once per step. With a ``durability`` of
            your own only "sync" does as much, without that reading.
        graph_options: more of ``graph.astream``: ``context``, ``durability``, ``interrupt_before`` …
        start: of ``Playhead.start``: ``stream_id``, ``owner``, ``idempotency_key``, ``metadata``, ``supersede`` …
    The metadata of each message holds what is in ``config["configurable"]``: readers see it, so keep secrets out.
    Raises: as ``Playhead.start``; TypeError.
    """
    if not hasattr(graph, "astream"):
        raise TypeError(f"start_graph needs a compiled graph (graph.compile()), not {type(graph).__name__}")
    place = latest(config)
    thread_id = None if place is None else str(place["configurable"]["thread_id"])
    start = {"thread_id": thread_id, "stream_id": uuid.uuid4().hex, **start}
    start["metadata"] = {**(start.get("metadata") or {}), _METADATA: {"thread_id": thread_id}}

    async def source() -> AsyncGenerator[Draft]:
        if keeps_partial and config is not None and input is not None and not isinstance(input, Command):
            await _keep_left(playhead, graph, config, start)
        options = graph_options or {}
        modes = [stream_mode] if isinstance(stream_mode, str) else list(stream_mode)
        waits = keeps_partial and _stores_behind(graph, options)
        parts = stream_graph(
            graph,
            input,
            config,
            stream_mode=[*modes, _STEPS] if waits else modes,
            subgraphs=subgraphs,
            keeps_partial=keeps_partial,
            **options,
        )
        begun_from: RunnableConfig | None = None
        async with aclosing(parts):
            try:
                async for part in parts:
                    if waits and part.mode == _STEPS and not part.ns:
                        begun_from = part.data["config"]
                    if part.mode in modes:
                        if begun_from is not None:
                            await _stored(graph, begun_from)
                            begun_from = None
                        yield recorded(part)
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                if (said := without_secrets(text)) == text:
                    raise
                raise ProviderError(said) from None  # providers repeat keys in their refusals

    return await playhead.start(source, **start)


def _stores_behind(graph: Graph, options: dict[str, Any]) -> bool:
    """Does the graph store a step's checkpoint while the next step runs already, as nobody said otherwise?"""
    chosen = options.keys() & {"durability", "checkpoint_during"}
    return isinstance(graph, Pregel) and bool(graph.checkpointer) and not chosen


async def _stored(graph: Graph, checkpoint: RunnableConfig) -> None:
    """Wait until a checkpoint of a run is stored: what people read must not outlive the question it answers.

    ``durability="sync"`` would do the same, but subgraphs inherit it, and one without a checkpointer
    (``checkpointer=False``) then fails: LangGraph waits for a checkpoint that it never has (1.2.22).
    """
    try:
        async with asyncio.timeout(_STORED_S):
            while True:
                # Ids of checkpoints rise with time.
                newest = (await graph.aget_state(latest(checkpoint) or checkpoint)).config
                if newest["configurable"].get("checkpoint_id", "") >= checkpoint["configurable"]["checkpoint_id"]:
                    return
                await asyncio.sleep(_LOOK_AGAIN_S)
    except TimeoutError:
        # Whoever writes it has failed, then the run will say so; or is very slow, and people wait for their answer.
        logger.warning("the checkpoint of a graph is not stored after %g s; its answer goes on", _STORED_S)


async def _keep_left(playhead: Playhead, graph: Graph, config: RunnableConfig, start: dict[str, Any]) -> None:
    """Keep what the run before this one said, if it failed or died."""
    owner, thread_id = start.get("owner"), start["thread_id"]
    if thread_id is None:
        return
    found = await playhead.find(Query(thread_ids=(thread_id,), limit=2), principal=owner)
    before = next((info for info in found if info.stream_id != start["stream_id"]), None)
    if before is None or before.status is not Status.CLOSED or before.outcome is None:
        return
    if before.outcome.kind is OutcomeKind.COMPLETED or before.metadata.get(_METADATA) != start["metadata"][_METADATA]:
        return
    said = Said()
    async for event in playhead.events(before.stream_id, principal=owner):
        if event.type == MESSAGES:
            said.add(part_of(event))
    await _keep(graph, config, said)


async def _keep(graph: Graph, config: RunnableConfig, said: Said) -> None:
    try:
        async with asyncio.timeout(_KEEP_S):
            await keep_partial(graph, config, said)
    except Exception:
        # The stream still has it; a thread that cannot take it must not hide how the run ended.
        logger.exception("what a stopped run had said could not be put into its thread's state")
