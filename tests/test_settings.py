"""Settings: names of the chat template, ``.env``, origins; what is wrong is said by name, and never with a value."""

import socket
from pathlib import Path

import pytest
from pydantic import ValidationError
from running_server import settings

from playhead.server.app import create_app
from playhead.server.greeting import ONE_HOST, greeting, without_password
from playhead.server.settings import Settings, complaints
from playhead.server.stopping import deadline_s
from playhead.stores.redis.address import Address

TEMPLATE_ENV = """
DATABASE_URI=postgresql://ann:pa55word@db.example/chat
REDIS_HOST=redis
REDIS_PORT=6379
REDIS_USERNAME=
REDIS_PASSWORD=se3ret
STREAM_TTL_SECONDS=900
OPENAI_API_KEY=sk-1
GOOGLE_API_KEY=AI-1
ANTHROPIC_API_KEY=
TAVILY_API_KEY=tvly-1
"""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, and an environment that sets nothing."""
    monkeypatch.chdir(tmp_path)
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        names = [f"PLAYHEAD_{name.upper()}"] if alias is None else getattr(alias, "choices", [alias])
        for one in names:
            monkeypatch.delenv(str(one), raising=False)
    return tmp_path


def test_a_templates_env_file_is_taken_as_it_is(elsewhere: Path) -> None:
    (elsewhere / ".env").write_text(TEMPLATE_ENV)
    given = Settings()
    assert given.database_url == "postgresql://ann:pa55word@db.example/chat"
    assert given.retention_s == 900
    assert given.openai_api_key
    assert given.openai_api_key.get_secret_value() == "sk-1"
    assert given.store_url == "redis://:se3ret@redis:6379/0"
    assert not given.has_threads_on_one_host
    assert given.unused == ["GOOGLE_API_KEY", "TAVILY_API_KEY"]
    assert "se3ret" not in repr(given)


@pytest.mark.parametrize(
    ("given", "where", "login"),
    [
        ({}, "10.0.0.7:6379", (None, None)),
        ({"port": "7000"}, "10.0.0.7:7000", (None, None)),
        ({"host": "fd00::7"}, "[fd00::7]:6379", (None, None)),
        ({"password": "a/b?c#d@e:f%20 ü"}, "10.0.0.7:6379", (None, "a/b?c#d@e:f%20 ü")),
        ({"username": "an:n@b%", "password": "x:y"}, "10.0.0.7:6379", ("an:n@b%", "x:y")),
    ],
)
def test_the_templates_redis_keeps_the_streams(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], where: str, login: tuple[str, str]
) -> None:
    for name, value in {"host": "10.0.0.7", **given}.items():
        monkeypatch.setenv(f"REDIS_{name.upper()}", value)
    mine = Settings()
    address = Address.parse(mine.store_url)
    (endpoint,) = address.endpoints
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    assert (f"{host}:{endpoint.port}", address.kind) == (where, "single")
    assert (address.login.username, address.login.password, address.login.database) == (*login, 0)
    assert mine.unused == []
    assert without_password(mine.store_url).endswith(f"***@{where}/0" if login[1] else f"//{where}/0")
    if "password" in given:
        assert given["password"] not in repr(mine)


def test_our_store_wins_over_the_templates_redis(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HOST": "redis://x", "PORT": "tcp://10.0.0.7:6379", "USERNAME": "ann"}.items():
        monkeypatch.setenv(f"REDIS_{name}", value)
    monkeypatch.setenv("PLAYHEAD_STORE", "sqlite:///mine.db")
    assert Settings().store_url == "sqlite:///mine.db"
    assert Settings().unused == []
    assert Settings(store="memory://").store_url == "memory://"


def test_without_its_host_the_rest_of_the_templates_redis_is_unused(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_PORT", "tcp://10.0.0.7:6379")  # as Kubernetes sets it
    monkeypatch.setenv("REDIS_PASSWORD", "se3ret")
    assert Settings().store_url == "sqlite:///var/playhead.db"
    assert Settings().unused == ["REDIS_PORT", "REDIS_PASSWORD"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"HOST": "redis://:se3ret@redis:6379"}, "setting REDIS_HOST: this is the name or address of a host"),
        ({"HOST": "redis:6379/0"}, "setting REDIS_HOST: this is the name or address of a host"),
        ({"HOST": "redis", "PORT": "tcp://se3ret:6379"}, "setting REDIS_PORT: a port is a number from 1 to 65535"),
        ({"HOST": "redis", "PORT": "65536"}, "setting REDIS_PORT: a port is a number from 1 to 65535"),
        ({"HOST": "redis", "USERNAME": "se3ret"}, "setting REDIS_USERNAME: a user name wants a password"),
    ],
)
def test_what_the_templates_redis_cannot_be_is_said_by_name(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], says: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"REDIS_{name}", value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    (line,) = complaints(refused.value)
    assert line.startswith(says)
    assert "se3ret" not in line


@pytest.mark.parametrize(
    ("store", "database", "is_so"),
    [
        ("redis://host/0", None, True),
        ("redis+cluster://host", "sqlite:///mine.db", True),
        ("redis://host/0", "postgresql://host/db", False),
        ("sqlite:///mine.db", None, False),
        ("memory://", None, False),
    ],
)
def test_shared_streams_beside_threads_of_one_machine_are_warned_of(
    store: str, database: str | None, *, is_so: bool
) -> None:
    mine = settings(store=store, database=database)
    assert mine.has_threads_on_one_host is is_so
    with socket.create_server(("127.0.0.1", 0)) as listening:
        said = [line for line in greeting(mine, listening, "demo") if "warning" in line]
    assert said == ([f"  warning   {ONE_HOST}"] if is_so else [])


async def test_an_application_that_greets_nobody_warns_in_its_log(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings(store=redis_url, data_dir=tmp_path))
    async with app.router.lifespan_context(app):
        pass
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [ONE_HOST]


def test_nothing_set_is_nothing_unused(elsewhere: Path) -> None:
    given = Settings()
    assert given.unused == []
    assert given.database_url == "sqlite:///var/threads.db"
    assert (given.workers, given.uds, given.cors_origins, given.access_log) == (1, None, (), False)


def test_our_names_win_over_the_templates(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URI", "postgresql://other/db")
    monkeypatch.setenv("PLAYHEAD_DATABASE", "sqlite:///mine.db")
    monkeypatch.setenv("STREAM_TTL_SECONDS", "900")
    monkeypatch.setenv("PLAYHEAD_RETENTION_S", "60")
    given = Settings()
    assert (given.database_url, given.retention_s) == ("sqlite:///mine.db", 60)


def test_threads_of_streams_in_memory_are_in_memory() -> None:
    assert settings(store="memory://").database_url == "sqlite://"


def test_variables_win_over_the_env_file(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / ".env").write_text("PLAYHEAD_WORKERS=2\nPLAYHEAD_UDS=var/p.sock\nPLAYHEAD_ACCESS_LOG=true\n")
    monkeypatch.setenv("PLAYHEAD_WORKERS", "3")
    given = Settings()
    assert (given.workers, given.uds, given.access_log) == (3, Path("var/p.sock"), True)


def test_origins_are_kept_as_browsers_send_them() -> None:
    given = settings(cors_origins="https://App.Example:443, http://localhost:5173 ,http://[::1]:80,tauri://localhost")
    assert given.cors_origins == (
        *("https://app.example", "http://localhost:5173", "http://[::1]", "tauri://localhost"),
    )


@pytest.mark.parametrize(
    "origin",
    ["null", "https://a.example/", "https://a.example/path", "a.example", "https://*.example", "https://u@a.example"],
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(cors_origins=f"https://good.example,{origin}")
    (line,) = complaints(refused.value)
    assert line.startswith(f"setting PLAYHEAD_CORS_ORIGINS: '{origin}' is no origin")


@pytest.mark.proves("P12.2")
def test_every_origin_is_refused_while_nobody_must_log_in() -> None:
    with pytest.raises(ValidationError) as refused:
        settings(cors_origins="*")
    (line,) = complaints(refused.value)
    assert line.startswith("setting PLAYHEAD_CORS_ORIGINS: '*' would let every page")


def test_complaints_name_the_variable_and_never_the_value(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYHEAD_WORKERS", "s3cret")
    monkeypatch.setenv("STREAM_TTL_SECONDS", "s3cret")
    with pytest.raises(ValidationError) as refused:
        Settings()
    lines = complaints(refused.value)
    assert [line.partition(": ")[0] for line in lines] == ["setting PLAYHEAD_WORKERS", "setting PLAYHEAD_RETENTION_S"]
    assert "s3cret" not in "".join(lines)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///var/playhead.db?synchronous=full", "sqlite:///var/playhead.db?synchronous=full"),
        ("postgresql://ann:pa:55@host/db", "postgresql://ann:***@host/db"),
        ("postgresql://ann:p@55@host/db?sslmode=require", "postgresql://ann:***@host/db?sslmode=require"),
        ("postgresql://ann@host/db", "postgresql://ann@host/db"),
        ("postgresql://host:5432/db?user=ann&password=55&x=1", "postgresql://host:5432/db?user=ann&password=***&x=1"),
        ("redis://:55@host:6379/0", "redis://:***@host:6379/0"),
        ("redis+sentinel://ann:p%40@h1:1,h2:2/main", "redis+sentinel://ann:***@h1:1,h2:2/main"),
        (
            "redis+sentinel://h1/main?sentinel_username=ann&sentinel_password=55&prefix=x",
            "redis+sentinel://h1/main?sentinel_username=ann&sentinel_password=***&prefix=x",
        ),
        ("sqlite:///a:b@c.db", "sqlite:///a:b@c.db"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_the_deadline_covers_both_graces() -> None:
    assert deadline_s(settings(shutdown_grace_s=7, cancel_grace_s=2)) == 7 + 2 + 3
