"""The socket that the server listens on: TCP on a loopback address, or a Unix socket.

A Unix socket is a file, and files outlive their process. What is found at the path is

    nothing ............................. fine
    a socket that nobody listens on ..... a dead server's; removed
    a socket that somebody answers ...... a living server's; refused
    anything else ....................... refused, never removed

A lock on the directory makes looking, removing and binding one step, so that two servers that start at once do not
remove each other's. The file's mode is 0600, set before anybody can connect.
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from playhead.errors import InvalidSetting
from playhead.server.local_guard import is_loopback
from playhead.server.settings import Settings

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

BACKLOG = 2_048
PATH_MAX_BYTES = 103
"""What the shortest ``sun_path`` of the systems that people use holds (macOS; Linux: 107)."""

_KNOCK_S = 1.0


@contextlib.contextmanager
def listening_at(settings: Settings) -> Iterator[socket.socket]:
    """``listen``; at the end the socket is closed, and its file removed unless another server listens there by then."""
    listening = listen(settings)
    try:
        yield listening
    finally:
        listening.close()
        if settings.uds:
            with contextlib.suppress(OSError, InvalidSetting), _locked(settings.uds.parent):
                _clear(settings.uds)


def listen(settings: Settings) -> socket.socket:
    """The listening socket; port 0 takes a free one. Raises: InvalidSetting, OSError (``errno`` tells)."""
    return _listen_on_tcp(settings) if settings.uds is None else _listen_on_file(settings.uds)


def place(listening: socket.socket) -> str:
    """Where a listening socket is, for people: ``http://127.0.0.1:8082`` or ``unix:var/playhead.sock``."""
    name = listening.getsockname()
    if not isinstance(name, tuple):
        return f"unix:{os.fsdecode(name)}"
    host, port = name[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def wanted_place(settings: Settings) -> str:
    """What was to be listened on, for error messages."""
    return str(settings.uds) if settings.uds else f"{settings.host}:{settings.port}"


def _listen_on_tcp(settings: Settings) -> socket.socket:
    host = settings.host.strip("[]")
    if not is_loopback(host):
        raise InvalidSetting(
            f"{settings.host} is not a loopback address: without authentication only this machine may come in"
            " (127.0.0.1, ::1 or localhost)",
            setting="host",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Not ``socket.create_server``: it leaves the protocol unnamed, and asyncio then leaves Nagle's algorithm on, which
    # with delayed acknowledgements costs every small answer 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    with _closed_on_error(listening):
        if os.name == "posix":  # elsewhere it would let two servers share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, settings.port))
        listening.listen(BACKLOG)
    return listening


def _listen_on_file(path: Path) -> socket.socket:
    if fcntl is None or not hasattr(socket, "AF_UNIX"):
        raise InvalidSetting("this system has no Unix sockets; listen on a port", setting="uds")
    if len(os.fsencode(path)) > PATH_MAX_BYTES:
        raise InvalidSetting(
            f"the path of a Unix socket may have {PATH_MAX_BYTES} bytes; give a shorter one than {path}", setting="uds"
        )
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _closed_on_error(listening), _locked(path.parent):
        _clear(path)
        listening.bind(os.fspath(path))
        path.chmod(0o600)
        listening.listen(BACKLOG)
    return listening


def _clear(path: Path) -> None:
    """Remove a dead server's socket. Raises: InvalidSetting (not a socket), OSError (EADDRINUSE: a living one's)."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise InvalidSetting(f"{path} is there already and is no socket; choose another path", setting="uds")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
        knocking.settimeout(_KNOCK_S)
        try:
            knocking.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except (TimeoutError, BlockingIOError):
            pass  # its backlog is full: somebody is there, and busy
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _closed_on_error(listening: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        listening.close()
        raise
