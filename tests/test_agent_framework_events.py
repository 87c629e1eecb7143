"""An agent's updates as events and back; the settings; what is there without the durable extension."""

import datetime
import subprocess
import sys
from enum import Enum
from typing import Any

import pytest
from agent_framework import AgentResponse, AgentResponseUpdate, AgentSession, Content, Message
from agent_framework_durabletask import AgentSessionId, DurableAgentSession

from playhead.adapters.agent_framework import (
    AgentStreamReader,
    PlayheadResponseCallback,
    agent_response_of,
    correlation_id_of,
    events,
    settings,
    text_of,
    update_of,
)
from playhead.adapters.agent_framework.chunks import StreamChunk
from playhead.adapters.agent_framework.sessions import Session, session_of
from playhead.errors import BadRequest, InvalidSetting
from playhead.model import Draft, Event

TEXT = Content.from_text


def update(*contents: Content, **about: Any) -> AgentResponseUpdate:
    return AgentResponseUpdate(contents=list(contents), **{"role": "assistant", "message_id": "m1", **about})


def recorded(
    *updates: AgentResponseUpdate, response: AgentResponse[Any] | None = None, event_max_bytes: int = 1_000_000
) -> list[Event]:
    transcript = events.Transcript(event_max_bytes)
    drafts = [draft for each in updates for draft in transcript.add(each)]
    if response is not None:
        drafts += transcript.finish(response)
    return [Event(offset, *draft) for offset, draft in enumerate(drafts, 1)]


def same(made: AgentResponse[Any], expected: AgentResponse[Any]) -> None:
    assert made.to_dict() == expected.to_dict()


RUNS: dict[str, list[AgentResponseUpdate]] = {
    "text": [update(TEXT("a ")), update(TEXT("b ")), update(TEXT("c"))],
    "two messages": [
        update(TEXT("a"), author_name="Ann", response_id="r1", created_at="2026-01-01T00:00:00Z"),
        update(Content.from_function_call("c1", "f", arguments='{"x":')),
        update(Content.from_function_call("c1", "", arguments="1}")),
        update(Content.from_function_result("c1", result={"y": [1, 2]}), role="tool", message_id=None),
        update(TEXT("b"), author_name="Ann", response_id="r2", message_id="m2"),
        update(Content.from_usage({"input_token_count": 1}), message_id="m2", finish_reason="stop"),
    ],
    "one update of many parts": [
        update(
            Content.from_text_reasoning(text="hm", protected_data="x"),
            TEXT("a"),
            Content.from_error(message="odd", error_code="e1"),
            Content.from_data(b"\x00\x01", "image/png"),
            Content.from_uri("https://example.com/a.png", media_type="image/png"),
        )
    ],
    "annotations": [
        update(
            TEXT("cited", annotations=[{"type": "citation", "title": "t"}]),
            TEXT("then", additional_properties={"a": 1}),
        )
    ],
    "about the update": [update(TEXT("a"), additional_properties={"k": "v"}, finish_reason="length")],
    "replaced message": [
        update(TEXT("first "), TEXT("draft")),
        update(TEXT("second"), merge_mode="replace"),
        update(TEXT(" third"), merge_mode="replace"),
    ],
    "continuation": [
        update(TEXT("a"), continuation_token={"response_id": "r1"}),
        update(TEXT("b"), continuation_token={"response_id": "r1"}),
    ],
    "agents": [update(TEXT("a"), agent_id="one"), update(TEXT("b"), agent_id="two", message_id="m2")],
    "nothing": [],
    "empty updates": [update(), AgentResponseUpdate()],
    "odd text": [update(TEXT("\ud800 \N{GRINNING FACE}\r\n\x00"))],
}


@pytest.mark.parametrize("name", RUNS)
def test_updates_round_trip(name: str) -> None:
    updates = RUNS[name]
    expected = AgentResponse.from_updates(updates)
    there = recorded(*updates, response=AgentResponse.from_updates(updates))
    same(agent_response_of(there), expected)
    assert events.REPLACED not in [each.type for each in there]
    said = "".join(map(text_of, there))
    if name != "replaced message":
        assert said == "".join(each.text for each in updates)


def test_text_is_an_event_of_its_own_and_nothing_is_said_twice() -> None:
    there = recorded(*RUNS["text"], response=AgentResponse.from_updates(RUNS["text"]))
    assert [(each.type, each.data) for each in there] == [
        ("agent.message", b'{"role":"assistant","message_id":"m1"}'),
        ("text", b"a "),
        ("text", b"b "),
        ("text", b"c"),
    ]
    assert [each and each.text for each in map(update_of, there)] == ["", "a ", "b ", "c"]


def test_empty_texts_are_no_events() -> None:
    assert [each.type for each in recorded(update(TEXT("")), update(TEXT("a")), update(TEXT("")))] == [
        *("agent.message", "text")
    ]


def test_another_final_answer_replaces_what_was_said() -> None:
    whole = AgentResponse(
        messages=[Message("assistant", ["better"], message_id="m9")],
        response_id="r9",
        usage_details={"output_token_count": 2},
        finish_reason="stop",
    )
    there = recorded(update(TEXT("half an ans")), response=whole)
    assert [each.type for each in there] == [
        *("agent.message", "text", "agent.replaced", "agent.message", "text", "usage", "agent.update")
    ]
    same(agent_response_of(there), whole)


def test_spaces_between_the_parts_of_a_message_are_no_other_answer() -> None:
    updates = [update(TEXT("a")), update(TEXT("b", annotations=[{"type": "citation"}]))]
    response = AgentResponse(messages=[Message("assistant", ["a", "b"])])
    assert response.text == "a b"
    assert len(recorded(*updates, response=response)) == 3


def test_a_large_text_is_cut_and_a_large_content_left_out() -> None:
    there = recorded(update(TEXT("é" * 600_000)))
    assert len(there) == 4
    assert "".join(map(text_of, there)) == "é" * 600_000
    result = Content.from_function_result("c1", result="x" * 600_000)
    (_, large) = recorded(update(result), event_max_bytes=600_000)
    assert large.type == "agent.omitted"
    assert large.json()["type"] == "function_result"
    assert large.json()["size_bytes"] > 600_000
    assert update_of(large) is None
    there = recorded(update(TEXT("\N{GRINNING FACE}" * 100)), event_max_bytes=100)
    assert max(len(each.data) for each in there) == 100
    assert "".join(map(text_of, there)) == "\N{GRINNING FACE}" * 100


def test_what_json_cannot_have_is_recorded_all_the_same() -> None:
    class Colour(Enum):
        RED = "red"

    class Odd:
        def __repr__(self) -> str:
            return "<odd>" * 1000

    arguments: Any = {
        "when": datetime.date(2026, 1, 2),
        "bytes": b"\x00",
        "nan": float("nan"),
        "set": {1},
        "enum": Colour.RED,
        "odd": Odd(),
        "content": TEXT("a"),
        3: "key",
    }
    (_, call) = recorded(update(Content.from_function_call("c1", "f", arguments=arguments)))
    kept = call.json()["arguments"]
    assert len(kept.pop("odd")) == 1000
    assert kept.pop("content")["text"] == "a"
    assert kept == {"when": "2026-01-02", "bytes": "AA==", "nan": None, "set": [1], "enum": "red", "3": "key"}


def test_events_of_a_newer_framework_and_of_others_can_be_read() -> None:
    new = update_of(Event(1, "hologram", b'{"type":"hologram","depth":3}'))
    assert new is not None
    assert new.contents[0].type == "hologram"
    assert new.contents[0].additional_properties["recorded"] == {"type": "hologram", "depth": 3}
    assert update_of(Event(1, "json", b"[1]")) is None
    assert update_of(Event(1, "json", b'{"a":1}')) is None
    assert text_of(Event(1, "json", b'{"a":1}')) == ""
    assert isinstance(events.Transcript().add(update(TEXT("a")))[1], Draft)
    assert StreamChunk("c").update is None


# ---- sessions and settings -------------------------------------------------------------------------


def test_sessions_in_each_form() -> None:
    session_id = AgentSessionId("Weather", "k@1")
    for form in ("@Weather@k@1", session_id, DurableAgentSession.from_session_id(session_id)):
        assert session_of(form) == Session("k@1", "Weather")
    assert session_of("k1") == Session("k1")
    assert session_of("@k1") == Session("@k1")
    assert session_of(AgentSession(session_id="k1")) == Session("k1")
    for wrong in ("", None, 3):
        with pytest.raises(BadRequest):
            session_of(wrong)  # type: ignore[arg-type]


def test_the_correlation_id_is_in_the_frameworks_answer() -> None:
    with pytest.raises(BadRequest):
        correlation_id_of(AgentResponse(messages=[Message("assistant", ["Hello"])]))


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "sqlite:///agent-streams.db"),
        ({"PLAYHEAD_STORE": "sqlite:///a.db", "REDIS_CONNECTION_STRING": "redis://other:6379"}, "sqlite:///a.db"),
        ({"REDIS_CONNECTION_STRING": "redis://other:6379/1"}, "redis://other:6379/1"),
        ({"REDIS_CONNECTION_STRING": "other:6379"}, "redis://other:6379"),
        ({"REDIS_CONNECTION_STRING": ""}, "sqlite:///agent-streams.db"),
    ],
)
def test_the_store_by_the_settings(environment: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PLAYHEAD_STORE", "REDIS_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert settings.store_url() == url
    assert settings.store_url("sqlite:///mine.db") == "sqlite:///mine.db"


@pytest.mark.parametrize("url", ["memory://", "host:6380,password=x,ssl=True", "mysql://a"])
def test_stores_that_cannot_be_are_refused_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLAYHEAD_STORE", raising=False)
    monkeypatch.setenv("REDIS_CONNECTION_STRING", url)
    for make in (PlayheadResponseCallback, AgentStreamReader):
        with pytest.raises(InvalidSetting):
            make()


@pytest.mark.parametrize(
    ("environment", "retention_s"),
    [
        ({}, 86_400.0),
        ({"PLAYHEAD_RETENTION_S": "60", "REDIS_STREAM_TTL_MINUTES": "10"}, 60.0),
        ({"REDIS_STREAM_TTL_MINUTES": "10"}, 600.0),
    ],
)
def test_retention_by_the_settings(
    environment: dict[str, str], retention_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PLAYHEAD_RETENTION_S", "REDIS_STREAM_TTL_MINUTES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert settings.options().retention_s == retention_s


@pytest.mark.parametrize("name", ["PLAYHEAD_RETENTION_S", "REDIS_STREAM_TTL_MINUTES"])
@pytest.mark.parametrize("value", ["ten", "0", "-1", "nan", "inf"])
def test_retention_that_is_none_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLAYHEAD_RETENTION_S", raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSetting, match=name):
        settings.options()


def test_without_the_durable_extension_readers_and_direct_runs_work() -> None:
    code = (
        "import sys; sys.modules['agent_framework_durabletask'] = sys.modules['durabletask'] = None\n"
        "from playhead.adapters.agent_framework import AgentStreamReader, record_agent_run\n"
        "try:\n    from playhead.adapters.agent_framework import PlayheadResponseCallback\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == (
        "PlayheadResponseCallback needs the framework's durable extension, which is not installed:"
        " pip install 'playhead[agent-framework]'\n"
    )


def test_without_the_framework_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['agent_framework'] = None\nimport playhead.adapters.agent_framework"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert "pip install 'playhead[agent-framework]'" in done.stderr
