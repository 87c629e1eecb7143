"""`playhead` that kills itself (-9) at a chosen step: `python kill_at.py MODULE:CLASS.METHOD:before|after serve …`.

`before` dies when the method is called, `after` when it has returned, both on the first call that counts: KILL_ARGUMENT
in the environment narrows that to calls with an argument whose type has this name.
"""

import asyncio
import functools
import importlib
import os
import signal
import sys
from typing import Any


def plant(place: str) -> None:
    module_name, path, moment = place.split(":")
    owner: Any = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    method = getattr(owner, name)
    wanted = os.environ.get("KILL_ARGUMENT")

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def then_die(waiting: Any) -> Any:
        await waiting
        die()

    @functools.wraps(method)
    def dies(*args: Any, **kwargs: Any) -> Any:
        if wanted is not None and all(type(arg).__name__ != wanted for arg in args):
            return method(*args, **kwargs)
        if moment == "before":
            die()
        waiting = method(*args, **kwargs)
        if not isinstance(waiting, asyncio.Future):
            return then_die(waiting)
        waiting.add_done_callback(die)
        return waiting

    setattr(owner, name, dies)


if __name__ == "__main__":
    plant(sys.argv.pop(1))
    from playhead.cli import main

    main()
