"""Who asks. Without configured authentication everybody who gets past the local guard is one and the same user."""

from typing import Annotated

from fastapi import Depends, Request

from playhead.server.chat import Chat
from playhead.streams import Playhead

LOCAL_USER = "local"


async def _principal() -> str:
    return LOCAL_USER


async def _chat(request: Request) -> Chat:
    chat: Chat = request.app.state.chat
    return chat


async def _playhead(request: Request) -> Playhead:
    chat: Chat = request.app.state.chat
    return chat.playhead


Principal = Annotated[str, Depends(_principal)]
TheChat = Annotated[Chat, Depends(_chat)]
ThePlayhead = Annotated[Playhead, Depends(_playhead)]
