"""Everything behind the doors, opened in order and closed in reverse: threads, agent, streams."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from langchain_core.language_models import BaseChatModel

from playhead.agents import choose_model, open_agent
from playhead.conversations import open_threads
from playhead.errors import InvalidSetting, StoreUnavailable
from playhead.model import StreamInfo
from playhead.server.chat import Chat
from playhead.server.deletion import heal_deletions
from playhead.server.settings import Settings
from playhead.streams import Playhead


@asynccontextmanager
async def open_chat(settings: Settings) -> AsyncIterator[Chat]:
    """The chat, open. Raises: PlayheadError, OSError."""
    _make_data_dir(settings)
    key = settings.openai_api_key
    model = choose_model(
        api_key=key.get_secret_value() if key else None,
        base_url=settings.openai_base_url,
        model=settings.openai_model,
    )
    async with AsyncExitStack() as stack:
        threads = await stack.enter_async_context(open_threads(settings.database_url))
        try:
            agent = await stack.enter_async_context(open_agent(settings.checkpoints, model))
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(
                f"the agent's file {settings.checkpoints} cannot be opened: {error}; it must be a SQLite database that"
                " this user may write, as must be its directory"
            ) from error

        async def settle(info: StreamInfo) -> None:
            await chat.settle(info)

        playhead = Playhead.open(settings.store_url, options=settings.options, settle=settle)
        chat = Chat(playhead, agent, threads, _name_of(model))
        async with playhead:
            healing = asyncio.create_task(heal_deletions(chat), name="playhead deletions")
            try:
                yield chat
            finally:
                healing.cancel()
                await asyncio.wait([healing])


def _make_data_dir(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSetting(
            f"the data directory {settings.data_dir} cannot be made: {error.strerror}; see PLAYHEAD_DATA_DIR",
            setting="data_dir",
        ) from error


def _name_of(model: BaseChatModel) -> str:
    return str(getattr(model, "model_name", None) or "demo")
