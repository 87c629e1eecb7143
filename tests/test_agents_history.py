"""The rules of a thread's messages: settling a turn, closing tool calls, what a model is sent, what a page shows."""

from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from playhead.agents import Turn
from playhead.agents.history import close_tool_calls, sendable, settled, turns
from playhead.model import OutcomeKind


def human(number: int) -> HumanMessage:
    return HumanMessage(f"question {number}", id=f"h{number}")


def ai(text: str, id: str, *calls: str) -> AIMessage:  # noqa: A002
    return AIMessage(text, id=id, tool_calls=[{"name": "clock", "args": {}, "id": call} for call in calls])


def settle(
    messages: list[Any], streamed: str, outcome: str, stream_id: str = "s1", message_id: str = "h1"
) -> list[BaseMessage]:
    once = settled(
        messages,
        stream_id=stream_id,
        message_id=message_id,
        user_text="question 1",
        streamed_text=streamed,
        outcome=OutcomeKind(outcome),
    )
    again = settled(
        once,  # type: ignore[arg-type]
        stream_id=stream_id,
        message_id=message_id,
        user_text="question 1",
        streamed_text=streamed,
        outcome=OutcomeKind(outcome),
    )
    assert again == once, "settling twice is not settling once"
    return once


def shown(messages: list[BaseMessage]) -> list[tuple[str, str, str | None]]:
    return [(turn.type, turn.content, turn.outcome) for turn in turns(messages)]


def test_a_completed_turn_stays_as_the_graph_left_it() -> None:
    thread = [human(1), ai("All of it.", "a1")]
    assert settle(thread, "All of it.", "completed") == thread


def test_what_the_graph_did_not_keep_becomes_the_turns_ending() -> None:
    after = settle([human(1)], "Half of", "cancelled")
    assert turns(after)[1] == Turn("ai", "Half of", "s1:partial", OutcomeKind.CANCELLED, "s1")


def test_text_before_a_tool_call_is_not_repeated() -> None:
    thread = [human(1), ai("Let me look. ", "a1", "c1"), ToolMessage("noon", tool_call_id="c1")]
    after = settle(thread, "Let me look. It is no", "interrupted")
    assert after[-1].text == "It is no"
    assert shown(after) == [("human", "question 1", None), ("ai", "Let me look. It is no", "interrupted")]


def test_an_open_tool_call_is_closed_right_behind_its_message() -> None:
    after = settle([human(1), ai("Let me look. ", "a1", "c1", "c2"), human(2)], "Let me look. ", "interrupted")
    assert [m.type for m in after] == ["human", "ai", "tool", "tool", "ai", "human"]
    assert sendable(after) == [m for m in after if m.id != "s1:partial"]
    assert shown(after)[1] == ("ai", "Let me look. ", "interrupted")


def test_an_ending_before_the_first_word_shows_its_outcome_and_is_not_sent_to_the_model() -> None:
    after = settle([human(1)], "", "cancelled")
    assert turns(after)[1] == Turn("ai", "", "s1:partial", OutcomeKind.CANCELLED, "s1")
    assert sendable(after) == [human(1)]


def test_a_missing_human_message_is_put_there() -> None:
    after = settle([human(0), ai("yes", "a0")], "", "interrupted")
    assert shown(after)[2:] == [("human", "question 1", None), ("ai", "", "interrupted")]


def test_a_late_ending_keeps_its_place_among_newer_turns() -> None:
    after = settle([human(1), human(2), ai("two", "a2")], "one half", "interrupted")
    assert [turn.content for turn in turns(after)] == ["question 1", "one half", "question 2", "two"]


def test_a_corrected_end_replaces_the_ending_in_its_place() -> None:
    early = settle([human(1), human(2)], "one", "interrupted")
    after = settle(early, "one half", "cancelled")
    assert [(m.id, m.text) for m in after] == [("h1", "question 1"), ("s1:partial", "one half"), ("h2", "question 2")]


def test_two_streams_that_answered_one_message_are_two_turns() -> None:
    first = settle([human(1)], "first try", "cancelled")
    after = settle([*first, ai("second try", "a2")], "second try", "completed", stream_id="s2")
    assert [turn.content for turn in turns(after)] == ["question 1", "first try", "second try"]


def test_text_that_was_shown_but_differs_from_what_was_kept_is_not_lost() -> None:
    after = settle([human(1), ai("kept", "a1")], "shown", "failed")
    assert shown(after)[1] == ("ai", "keptshown", "failed")


def test_text_that_was_kept_but_not_shown_any_more_is_kept() -> None:
    after = settle([human(1), ai("kept to the end", "a1")], "kept to", "cancelled")
    assert shown(after)[1] == ("ai", "kept to the end", "cancelled")


def test_calls_with_unreadable_arguments_are_closed_too() -> None:
    broken = AIMessage("", id="a1", invalid_tool_calls=[{"name": "clock", "args": "{", "id": "c1", "error": "bad"}])
    closed = close_tool_calls([human(1), broken])
    assert [m.type for m in closed] == ["human", "ai", "tool"]
    assert closed == close_tool_calls(closed)


def test_the_same_call_id_in_two_messages_is_closed_twice() -> None:
    answered = [ai("", "a1", "c1"), ToolMessage("noon", tool_call_id="c1")]
    closed = close_tool_calls([*answered, human(2), ai("", "a2", "c1")])
    assert [m.type for m in closed] == ["ai", "tool", "human", "ai", "tool"]


def test_tool_messages_and_empty_texts_are_not_shown() -> None:
    thread = [human(1), ai("", "a1", "c1"), ToolMessage("noon", tool_call_id="c1"), ai("It is noon.", "a2")]
    assert turns(thread) == [Turn("human", "question 1", "h1"), Turn("ai", "It is noon.", "a2")]


def test_content_blocks_show_their_text() -> None:
    blocks = AIMessage([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "Yes."}], id="a1")
    assert turns([human(1), blocks])[1].content == "Yes."
