"""What went wrong with the database of threads, for people, in one line: never its password, never what was stored."""

import sqlite3
from pathlib import Path

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from playhead.errors import PlayheadError, StoreError, StoreReadOnly, StoreUnavailable
from playhead.stores.sqlite.faults import named

# SQLSTATEs (PostgreSQL, appendix A). As text: who uses SQLite need not load psycopg.
_READ_ONLY = "25006"
_NOT_ALLOWED = "42501"


def in_words(error: Exception, url: URL) -> PlayheadError:
    """The error of Playhead for one of SQLAlchemy, a driver or the system, decided by types and codes alone."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if url.get_backend_name() == "sqlite" and isinstance(cause, sqlite3.Error | OSError):
        return named(cause, Path(url.database or "the database of threads"))
    where = _place(url)
    if isinstance(error, PoolTimeout):
        return StoreUnavailable(f"all connections to {where} are in use")
    state = getattr(cause, "sqlstate", None)
    if state == _READ_ONLY:
        return StoreReadOnly(f"{where} is read-only (a standby?); name the server that may be written")
    if state == _NOT_ALLOWED:
        return StoreError(f"{where} does not let this user do it; grant it USAGE and CREATE on the schema")
    gone = isinstance(error, DBAPIError) and error.connection_invalidated
    if isinstance(error, DBAPIError) and not gone and not isinstance(error, OperationalError | InterfaceError):
        return StoreError(f"{where} refused what it was asked: {type(cause).__name__}")
    reason = " ".join(str(cause).split()) or type(cause).__name__
    return StoreUnavailable(f"the database of threads at {where} cannot be used: {reason}")


def no_answer(url: URL, waited_s: float) -> StoreUnavailable:
    """It took too long; whether it was done nobody knows."""
    return StoreUnavailable(f"the database of threads at {_place(url)} did not answer within {waited_s:g} s")


def _place(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return Path(url.database).name if url.database else "memory"
    return url.set(username=None, password=None, drivername="postgresql", query={}).render_as_string()
