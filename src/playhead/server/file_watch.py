"""What changes under some paths, found by looking at times and sizes; for ``--reload``."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

WATCHED = {".py", ".html", ".css", ".js"}

_Stamp = tuple[int, int]


class FileWatch:
    """Tells which file has changed, come or gone since the last look. A look at this package takes milliseconds."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = list(paths)
        self._seen = self._look()

    def changed(self) -> Path | None:
        """One of the changed files; None when all is as it was."""
        before, self._seen = self._seen, self._look()
        different = before.items() ^ self._seen.items()
        return min((path for path, _ in different), default=None)

    def _look(self) -> dict[Path, _Stamp]:
        return {path: stamp for path in self._files() if (stamp := _stamp(path)) is not None}

    def _files(self) -> Iterator[Path]:
        for root in self._paths:
            if not root.is_dir():
                yield root
                continue
            for folder, folders, names in os.walk(root):
                folders[:] = [name for name in folders if name != "__pycache__"]
                yield from (Path(folder, name) for name in names if Path(name).suffix in WATCHED)


def _stamp(path: Path) -> _Stamp | None:
    try:
        facts = path.stat()
    except OSError:
        return None  # gone, or going
    return facts.st_mtime_ns, facts.st_size
