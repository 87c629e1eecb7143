"""Which model answers: OpenAI's or a compatible server when one is configured, else the demo model."""

from langchain_core.language_models import BaseChatModel

from .demo import DemoChatModel

DEFAULT_MODEL = "gpt-4.1-mini"
"""Small, streams at once (no hidden reasoning before the first word) and calls tools."""

CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 300.0
"""How long a model may say nothing. Generous: local servers can read a long prompt for minutes."""

OPENING_RETRIES = 2
"""Retries of a request that was refused before its first byte; the client obeys ``Retry-After``. A broken
stream is never retried: its first half has been shown already."""


def choose_model(*, api_key: str | None = None, base_url: str | None = None, model: str | None = None) -> BaseChatModel:
    """Return the chat model for these settings; empty strings count as not set.

    Args:
        api_key: ``OPENAI_API_KEY``.
        base_url: ``OPENAI_BASE_URL``. Alone it is enough: local servers want no key.
        model: ``OPENAI_MODEL``; `DEFAULT_MODEL` when not set.
    """
    if not api_key and not base_url:
        return DemoChatModel()
    # Imported here, since it takes a second that the demo model need not wait for.
    from langchain_openai import ChatOpenAI
    from openai import Timeout
    from pydantic import SecretStr

    return ChatOpenAI(
        model=model or DEFAULT_MODEL,
        api_key=SecretStr(api_key or "not-needed"),
        base_url=base_url or None,
        streaming=True,
        # Neither is understood by every compatible server; plain chat completions are.
        stream_usage=False,
        use_responses_api=False,
        timeout=Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        # Off: it waits with `asyncio.wait_for`, which in Python 3.11 loses a cancel that comes together with a
        # chunk (python/cpython#86296); the reply would then run to its end. The read timeout above does the job.
        stream_chunk_timeout=None,
        max_retries=OPENING_RETRIES,
    )
