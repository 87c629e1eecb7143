"""What went wrong, in words of Playhead: driver and system errors by their code, never by their text."""

import errno
import os
import sqlite3
from pathlib import Path

from playhead.errors import (
    PlayheadError,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
)

PRIMARY_CODE = 0xFF
LOCKED_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_FULL_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY_ERRNOS = (errno.EACCES, errno.EPERM, errno.EROFS)


def is_locked(error: sqlite3.Error) -> bool:
    """Whether somebody else's lock was in the way."""
    return getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE in LOCKED_CODES


def named(error: Exception, path: Path) -> PlayheadError:
    """The error of Playhead for any error that came up while working with the file; the cause is set."""
    if isinstance(error, PlayheadError):
        return error
    found: StoreError
    if isinstance(error, sqlite3.Error):
        found = _of_driver(error, path)
    elif isinstance(error, OSError):
        found = _of_system(error, path)
    else:
        found = StoreError(f"working with {path.name} failed: {error!r}", file=path.name)
    found.__cause__ = error
    return found


def _of_system(error: OSError, path: Path) -> StoreError:
    name = path.name
    if error.errno in _FULL_ERRNOS:
        return StoreFull(f"no space left for {name}; free some and try again", file=name)
    if error.errno in _READ_ONLY_ERRNOS:
        return _read_only(name)
    return StoreUnavailable(f"{name} cannot be used: {error.strerror}; check its path", file=name)


def _of_driver(error: sqlite3.Error, path: Path) -> StoreError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    name = path.name
    if code in _FULL_CODES:
        return StoreFull(
            f"{name} cannot grow: the disk or a quota is full; free some space, then it goes on", file=name
        )
    match code & PRIMARY_CODE:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreLocked(f"{name} is locked by another program; end it or let it finish, then retry", file=name)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return _read_only(name)
        case sqlite3.SQLITE_CANTOPEN:
            if path.is_dir():
                return StoreUnavailable(f"{name} is a directory; name a file in it", file=name)
            if not (os.access(path.parent, os.W_OK) and os.access(path, os.R_OK | os.W_OK)):
                return _read_only(name)
            return StoreUnavailable(f"{name} cannot be opened; check its path and the limit of open files", file=name)
        case sqlite3.SQLITE_NOTADB:
            return StoreCorrupt(f"{name} is not a SQLite database; choose another path", file=name)
        case sqlite3.SQLITE_CORRUPT:
            return StoreCorrupt(
                f"{name} is damaged (truncated, or overwritten by another program); restore it from a backup", file=name
            )
        case sqlite3.SQLITE_IOERR:
            return StoreUnavailable(f"reading or writing {name} failed; check the disk", file=name)
    return StoreError(f"SQLite could not work with {name}: {error}", file=name)


def _read_only(name: str) -> StoreError:
    return StoreReadOnly(
        f"{name} cannot be written; this user needs write permission for the file and for its directory", file=name
    )
