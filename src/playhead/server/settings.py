"""The settings of ``playhead serve``: environment variables, or a ``.env`` file in the working directory.

Names of the chat template are accepted. Those that mean something here (``DATABASE_URI``, ``REDIS_HOST`` and what
belongs to it, ``STREAM_TTL_SECONDS``) are other ways to say our settings; the rest is accepted without effect, and the
start says so in one line: who brings a template's ``.env`` along has a server that runs.
"""

import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from playhead.options import Options
from playhead.server.local_guard import parse_host

_ENGINE = Options()
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_WITHOUT_EFFECT = "Accepted; this version does nothing with it."
_REDIS_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_REDIS_PORT = 6379


def _template(name: str) -> Any:
    return Field(default=None, validation_alias=name, description=_WITHOUT_EFFECT)


class Settings(BaseSettings):
    """Each field is read from ``PLAYHEAD_<NAME>`` unless another name is given."""

    model_config = SettingsConfigDict(
        env_prefix="PLAYHEAD_",
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        populate_by_name=True,
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on; a loopback one while nobody must log in.")
    port: int = Field(default=8082, ge=0, le=65_535, description="TCP port; 0 takes a free one.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Further `Host` values to answer to, with their port, separated by commas: for tunnels and port"
        " forwards, such as `localhost:9000`.",
    )
    uds: Path | None = Field(
        default=None, description="Listen on a Unix socket at this path instead of TCP; only its owner may connect."
    )
    workers: int = Field(default=1, ge=1, le=64, description="Processes that serve, on one store.")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins whose pages may use this server, separated by commas, such as `https://app.example`.",
    )
    data_dir: Path = Field(
        default=Path("var"), description="Where the default store and the agent's checkpoints are kept."
    )
    store: str | None = Field(
        default=None,
        description="Where streams are kept: `sqlite:///path`, `redis://host:6379/0` or `memory://`; `playhead.db` in"
        " the data directory.",
    )
    database: str | None = Field(
        default=None,
        validation_alias=AliasChoices("PLAYHEAD_DATABASE", "DATABASE_URI"),
        description="Where threads and their history are kept: `sqlite:///path` or `postgresql://user:password@host/db`;"
        " `threads.db` in the data directory.",
    )

    openai_api_key: SecretStr | None = Field(
        default=None,
        validation_alias="OPENAI_API_KEY",
        description="Key of the model; without it the demo model answers.",
    )
    openai_base_url: str | None = Field(
        default=None,
        validation_alias="OPENAI_BASE_URL",
        description="Any OpenAI-compatible endpoint; local ones want no key.",
    )
    openai_model: str | None = Field(default=None, validation_alias="OPENAI_MODEL", description="Name of the model.")

    lease_s: float = Field(
        default=_ENGINE.lease_s, gt=0, le=3_600, description="How long a silent process counts as alive."
    )
    retention_s: float = Field(
        default=_ENGINE.retention_s,
        gt=0,
        le=1e10,
        validation_alias=AliasChoices("PLAYHEAD_RETENTION_S", "STREAM_TTL_SECONDS"),
        description="How long a closed stream stays readable.",
    )
    expired_for_s: float = Field(
        default=_ENGINE.expired_for_s, gt=0, le=1e10, description="How long after that its id answers `expired` (410)."
    )
    event_max_bytes: int = Field(default=_ENGINE.event_max_bytes, gt=0, description="Largest event.")
    stream_max_bytes: int = Field(default=_ENGINE.stream_max_bytes, gt=0, description="Largest stream.")
    live_per_owner_max: int | None = Field(
        default=None, gt=0, description="Most live streams of one owner; unset: no limit."
    )
    readers_per_owner_max: int | None = Field(
        default=None, gt=0, description="Most readers of one owner in one process; unset: no limit."
    )
    cache_max_bytes: int = Field(default=_ENGINE.cache_max_bytes, gt=0, description="Memory that readers share.")
    cancel_grace_s: float = Field(
        default=2.0, gt=0, le=3_600, description="What a cancelled source gets to stop before it is fenced."
    )
    shutdown_grace_s: float = Field(
        default=5.0, ge=0, le=3_600, description="What running answers get to finish when the server is told to stop."
    )
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$", description="For standard error.")
    access_log: bool = Field(default=False, description="A line on standard error for each request.")

    redis_host: str | None = Field(
        default=None,
        validation_alias="REDIS_HOST",
        description="The Redis that keeps the streams when `PLAYHEAD_STORE` is not set.",
    )
    redis_port: str | None = Field(default=None, validation_alias="REDIS_PORT", description="Of that Redis: 6379.")
    redis_password: SecretStr | None = Field(
        default=None, validation_alias="REDIS_PASSWORD", description="Of that Redis."
    )
    redis_username: str | None = Field(default=None, validation_alias="REDIS_USERNAME", description="Of that Redis.")
    google_api_key: SecretStr | None = _template("GOOGLE_API_KEY")
    anthropic_api_key: SecretStr | None = _template("ANTHROPIC_API_KEY")
    tavily_api_key: SecretStr | None = _template("TAVILY_API_KEY")

    @field_validator("allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if parse_host(host) is None:
                raise ValueError(f"{host!r} is no host with a port, such as localhost:9000")
        return hosts

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_as_browsers_send_it, origins))

    # What belongs to the template's Redis is looked at only when it counts: Kubernetes, for one, sets REDIS_PORT to a
    # URL for whoever runs beside a service of that name.

    @field_validator("redis_host")
    @classmethod
    def _check_redis_host(cls, host: str | None, info: ValidationInfo) -> str | None:
        if host is not None and info.data.get("store") is None and not _REDIS_HOST.fullmatch(host):
            raise ValueError("this is the name or address of a host, and nothing else; URLs are for PLAYHEAD_STORE")
        return host

    @field_validator("redis_port")
    @classmethod
    def _check_redis_port(cls, port: str | None, info: ValidationInfo) -> str | None:
        is_port = port is None or (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65_536)
        if _is_redis_by_host(info) and not is_port:
            raise ValueError("a port is a number from 1 to 65535")
        return port

    @field_validator("redis_username")
    @classmethod
    def _check_redis_username(cls, username: str | None, info: ValidationInfo) -> str | None:
        if username is not None and _is_redis_by_host(info) and info.data.get("redis_password") is None:
            raise ValueError("a user name wants a password; set REDIS_PASSWORD as well")
        return username

    @property
    def store_url(self) -> str:
        """With its password, if it has one: not to be shown."""
        if self.store is None and self.redis_host is not None:
            host = f"[{self.redis_host}]" if ":" in self.redis_host else self.redis_host
            return f"redis://{self._redis_login}{host}:{self.redis_port or _REDIS_PORT}/0"
        return self.store or f"sqlite:///{self.data_dir / 'playhead.db'}"

    @property
    def _redis_login(self) -> str:
        if self.redis_password is None:
            return ""
        return f"{quote(self.redis_username or '', '')}:{quote(self.redis_password.get_secret_value(), '')}@"

    @property
    def database_url(self) -> str:
        """Threads of streams in memory would outlive them, so these are in memory too."""
        if self.database is not None:
            return self.database
        return "sqlite://" if self.store_url.startswith("memory:") else f"sqlite:///{self.data_dir / 'threads.db'}"

    @property
    def has_threads_on_one_host(self) -> bool:
        """Other machines can share the streams but not the threads; the start warns of it."""
        is_shared = not self.store_url.startswith(("memory:", "sqlite:"))
        return is_shared and self.database_url.startswith("sqlite")

    @property
    def checkpoints(self) -> str:
        """Where the agent keeps its state; with streams in memory that would outlive them, so it does not."""
        return ":memory:" if self.store_url.startswith("memory:") else str(self.data_dir / "checkpoints.db")

    @property
    def options(self) -> Options:
        """The engine's part of the settings."""
        return Options(**self.model_dump(include=set(Options.__slots__)))

    @property
    def unused(self) -> list[str]:
        """Names that are set and have no effect."""
        of_redis = {"redis_port", "redis_username", "redis_password"} if self.redis_host is None else set()
        return [
            str(field.validation_alias)
            for name, field in type(self).model_fields.items()
            if (field.description == _WITHOUT_EFFECT or name in of_redis) and getattr(self, name) is not None
        ]


def complaints(error: ValidationError) -> list[str]:
    """What is wrong with settings, a line each, with the name that the setting has in the environment. Never values."""
    lines = []
    for one in error.errors():
        name = str(one["loc"][0])
        name = name if name.isupper() else f"PLAYHEAD_{name.upper()}"
        lines.append(f"setting {name}: {one['msg'].removeprefix('Value error, ')}")
    return lines


def _is_redis_by_host(info: ValidationInfo) -> bool:
    return info.data.get("store") is None and info.data.get("redis_host") is not None


def _as_browsers_send_it(origin: str) -> str:
    """An origin in lower case and without the scheme's own port. Raises: ValueError."""
    if origin == "*":
        raise ValueError(
            "'*' would let every page that the browser has open act as the local user, as nobody has to log in; name"
            " the origins"
        )
    origin = origin.lower()
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(f"{origin!r} is no origin, such as https://app.example:8443 (nothing behind host and port)")
    return origin.removesuffix(_DEFAULT_PORTS.get(urlsplit(origin).scheme, ":"))
