"""Everything behind the doors, opened in order and closed in reverse: threads, agent, streams."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from langchain_core.language_models import BaseChatModel

from playhead.agents import choose_model, open_agent
from playhead.conversations import is_postgresql, open_threads
from playhead.errors import InvalidSetting
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
        agent = await stack.enter_async_context(open_agent(_checkpoints(settings), model))

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


def _checkpoints(settings: Settings) -> str:
    """Where the agent keeps its state: with the threads, if these are where other machines see them."""
    return settings.database_url if is_postgresql(settings.database_url) else settings.checkpoints


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
