"""Which addresses are this machine, as text: what is listened on and which Host is taken for one."""

import pytest
from running_server import settings

from playhead.errors import InvalidSetting
from playhead.server.local_guard import is_loopback, parse_host
from playhead.server.serve import listen


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", "localhost.example.org", ""])
@pytest.mark.proves("P12.2")
def test_only_loopback_addresses_are_listened_on(host: str) -> None:
    with pytest.raises(InvalidSetting, match="loopback"):
        listen(settings().model_copy(update={"host": host}))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_loopback_addresses_are_listened_on(host: str) -> None:
    listening = listen(settings(host=host))
    assert is_loopback(listening.getsockname()[0])
    listening.close()


@pytest.mark.parametrize("text", ["", ":80", "a b", "a:b", "a:", "[::1", "::1", "a/b", "a:123456", "a\n"])
def test_what_is_no_host_is_none(text: str) -> None:
    assert parse_host(text) is None
