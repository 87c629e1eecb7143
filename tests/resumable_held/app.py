"""The example app; a stream of N chunks holds back its last one while there is a file ``hold-N`` in the directory.

Who tests what happens while a stream is live needs it to live until then, however slow the machine is.
"""

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parents[2] / "examples" / "resumable_stream" / "app.py"

spec: Any = importlib.util.spec_from_file_location("example", EXAMPLE)
example: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)
paced = example.my_stream


def is_held(chunk: str, chunks: int) -> bool:
    return chunk.startswith(f"data: chunk {chunks - 1} ") and Path(f"hold-{chunks}").exists()


async def my_stream(chunks: int = 10, pause_s: float = 0.5) -> AsyncIterator[str]:
    async for chunk in paced(chunks, pause_s):
        while is_held(chunk, chunks):  # noqa: ASYNC110 - a file of another process has no event
            await asyncio.sleep(0.01)
        yield chunk


example.my_stream = my_stream  # its endpoints look it up when they are called
app = example.app
