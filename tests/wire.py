"""An ASGI application without a server."""

import asyncio
from typing import Any


class Wire:
    """What a server gives it; the client stalls (``let.clear()``) and leaves (``gone.set()``) on command."""

    def __init__(self, method: str = "GET") -> None:
        self.scope = {"type": "http", "method": method}
        self.sent: list[dict[str, Any]] = []
        self.gone = asyncio.Event()
        self.stuck = asyncio.Event()
        self.let = asyncio.Event()
        self.let.set()
        self.receives = 0

    async def receive(self) -> dict[str, Any]:
        self.receives += 1
        if self.receives == 1:
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if not self.let.is_set():
            self.stuck.set()
        await self.let.wait()
        self.sent.append(message)

    async def run(self, app: Any) -> None:
        await app(self.scope, self.receive, self.send)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def is_complete(self) -> bool:
        return not self.sent[-1].get("more_body", False) and self.sent[-1]["type"] == "http.response.body"
