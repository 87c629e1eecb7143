"""The rules of a thread's messages, pure: what a settled turn looks like, what a model may be sent, what a page shows.

A thread is a list of messages; a *turn* of it is a human message and all up to the next human message. A finished
turn is what the graph left there. One that ended early gets one more message, its *ending*::

    AIMessage(id="<stream_id>:partial", content=<what was streamed and is not in the turn yet>,
              additional_kwargs={"playhead": {"stream_id": ..., "outcome": ...}})

whose content may be empty: then it only carries the outcome. Providers refuse a tool call without an answer and an
empty message; `close_tool_calls` and `sendable` see to that. When what an ending looks like changes, older ones must
stay readable: they are in people's files.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage

from playhead.adapters.langgraph.tool_calls import answers_to, close_tool_calls
from playhead.model import OutcomeKind

_MARK = "playhead"


@dataclass(frozen=True)
class Turn:
    """One bubble of a conversation.

    Attributes:
        content: Its text. For ``ai`` what its stream showed; empty only if that ended before the first word.
        outcome: How the stream ended, if not as a plain finished answer.
        stream_id: The stream an outcome belongs to.
    """

    type: Literal["human", "ai"]
    content: str
    message_id: str
    outcome: OutcomeKind | None = None
    stream_id: str | None = None


def turns(messages: Sequence[BaseMessage]) -> list[Turn]:
    """Return what a page shows, in order: all that answers one human message is one bubble.

    Tool messages and empty texts are left out, except an ending without text: "stopped before the first word".
    """
    shown: list[Turn] = []
    for message in messages:
        mark = message.additional_kwargs.get(_MARK, {})
        if isinstance(message, HumanMessage):
            shown.append(Turn("human", str(message.text), message.id or ""))
        elif isinstance(message, AIMessage) and (message.text or mark):
            outcome = OutcomeKind(mark["outcome"]) if mark else None
            turn = Turn("ai", str(message.text), message.id or "", outcome, mark.get("stream_id"))
            # An ending is the last of its stream: what comes after it is another stream's.
            if shown and shown[-1].type == "ai" and shown[-1].stream_id is None:
                turn = replace(turn, content=shown.pop().content + turn.content)
            shown.append(turn)
    return [turn for turn in shown if turn.content or turn.outcome]


def whole(text: str) -> str:
    """The text as providers and checkpointers can carry it.

    Some servers send the halves of a surrogate pair one by one: joined they are a character, alone they become U+FFFD.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def sendable(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return the messages as every provider takes them: no open tool call, no empty answer."""
    return [m for m in close_tool_calls(messages) if not isinstance(m, AIMessage) or m.content or answers_to(m)]


def settled(
    messages: Sequence[AnyMessage],
    *,
    stream_id: str,
    message_id: str,
    user_text: str,
    streamed_text: str,
    outcome: OutcomeKind,
) -> list[BaseMessage]:
    """Return the thread with a stream's turn settled: all that was typed and shown is in it, in its place.

    Doing it again changes nothing. Text the graph kept is not repeated; what it did not keep, and any outcome but
    ``completed``, goes into the turn's ending. A turn whose human message is missing is put at the end.
    """
    ending_id = f"{stream_id}:partial"
    user_text, streamed_text = whole(user_text), whole(streamed_text)
    thread: list[BaseMessage] = [m for m in messages if m.id != ending_id]
    if all(m.id != message_id for m in thread):
        thread.append(HumanMessage(user_text, id=message_id))
    start = next(i for i, m in enumerate(thread) if m.id == message_id)
    end = next((i for i in range(start + 1, len(thread)) if isinstance(thread[i], HumanMessage)), len(thread))
    turn = close_tool_calls(thread[start:end])
    # Another stream's ending in the same turn (an answer that was asked for again) is not this stream's text.
    kept = "".join(str(m.text) for m in turn if isinstance(m, AIMessage) and _MARK not in m.additional_kwargs)
    lost = "" if kept.startswith(streamed_text) else streamed_text.removeprefix(kept)
    if lost or outcome is not OutcomeKind.COMPLETED:
        mark = {"stream_id": stream_id, "outcome": outcome.value}
        turn.append(AIMessage(lost, id=ending_id, additional_kwargs={_MARK: mark}))
    return [*thread[:start], *turn, *thread[end:]]
