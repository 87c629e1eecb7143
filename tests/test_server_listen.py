"""What is listened on: loopback addresses and Unix sockets; and which Host is taken for this machine, as text."""

import errno
import os
import socket
import stat
import threading
from pathlib import Path

import pytest
from running_server import WAIT_S, settings

from playhead.errors import InvalidSetting
from playhead.server.listening import PATH_MAX_BYTES, listen, listening_at, place
from playhead.server.local_guard import is_loopback, parse_host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", "localhost.example.org", ""])
@pytest.mark.proves("P12.2")
def test_only_loopback_addresses_are_listened_on(host: str) -> None:
    with pytest.raises(InvalidSetting, match="loopback"):
        listen(settings().model_copy(update={"host": host}))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_loopback_addresses_are_listened_on(host: str) -> None:
    listening = listen(settings(host=host))
    assert is_loopback(listening.getsockname()[0])
    assert place(listening) == f"http://{listening.getsockname()[0]}:{listening.getsockname()[1]}"
    listening.close()


@pytest.mark.parametrize("text", ["", ":80", "a b", "a:b", "a:", "[::1", "::1", "a/b", "a:123456", "a\n"])
def test_what_is_no_host_is_none(text: str) -> None:
    assert parse_host(text) is None


# ---- Unix sockets --------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Relative, since the test's own directory may be too long a path for a socket."""
    monkeypatch.chdir(tmp_path)
    return Path("p.sock")


@pytest.mark.proves("P12.2")
def test_a_unix_socket_is_private_and_is_removed_at_the_end(path: Path) -> None:
    with listening_at(settings(uds=path)) as listening:
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert place(listening) == "unix:p.sock"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.fspath(path))
    assert not path.exists()


def test_a_dead_servers_socket_is_removed(path: Path) -> None:
    listen(settings(uds=path)).close()
    assert path.exists(), "as after kill -9"
    with listening_at(settings(uds=path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(path))


def test_a_living_servers_socket_is_refused(path: Path) -> None:
    with listening_at(settings(uds=path)) as first:
        with pytest.raises(OSError, match="in use") as refused, listening_at(settings(uds=path)):
            pass
        assert refused.value.errno == errno.EADDRINUSE
        first.accept()[0].close()  # the one that knocked
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.fspath(path))


def test_of_two_servers_that_start_at_once_on_a_dead_ones_socket_one_wins(path: Path) -> None:
    for _ in range(20):
        listen(settings(uds=path)).close()
        together = threading.Barrier(4)
        listening: list[socket.socket] = []
        refused: list[int | None] = []

        def start(together: threading.Barrier = together, listening: list = listening, refused: list = refused) -> None:
            together.wait(WAIT_S)
            try:
                listening.append(listen(settings(uds=path)))
            except OSError as error:
                refused.append(error.errno)

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert (len(listening), refused) == (1, [errno.EADDRINUSE] * 3)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.fspath(path))
        listening[0].close()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_is_never_removed(path: Path, kind: str) -> None:
    match kind:
        case "file":
            path.write_text("dear diary")
        case "directory":
            path.mkdir()
        case "link":
            Path("diary").write_text("dear diary")
            path.symlink_to("diary")
    with pytest.raises(InvalidSetting, match="no socket"):
        listen(settings(uds=path))
    assert path.exists()


def test_a_path_that_is_too_long_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=f"{PATH_MAX_BYTES} bytes"):
        listen(settings(uds=tmp_path / ("x" * PATH_MAX_BYTES)))


def test_a_socket_that_another_server_has_put_there_meanwhile_is_left(path: Path) -> None:
    with listening_at(settings(uds=path)) as listening:
        listening.close()  # it drains; a successor starts
        successor = listen(settings(uds=path))
    assert path.exists()
    successor.close()
