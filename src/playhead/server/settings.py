"""The settings of ``playhead serve``: environment variables, or a ``.env`` file in the working directory."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from playhead.options import Options
from playhead.server.local_guard import parse_host

_ENGINE = Options()


class Settings(BaseSettings):
    """Each field is read from ``PLAYHEAD_<NAME>`` unless another name is given."""

    model_config = SettingsConfigDict(
        env_prefix="PLAYHEAD_", env_file=".env", env_ignore_empty=True, extra="ignore", populate_by_name=True
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on; a loopback one while nobody must log in.")
    port: int = Field(default=8082, ge=0, le=65_535, description="TCP port; 0 takes a free one.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Further `Host` values to answer to, with their port, separated by commas: for tunnels and port"
        " forwards, such as `localhost:9000`.",
    )
    data_dir: Path = Field(
        default=Path("var"), description="Where the default store and the agent's checkpoints are kept."
    )
    store: str | None = Field(
        default=None,
        description="Where streams are kept: `sqlite:///path` or `memory://`; `playhead.db` in the data directory.",
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

    @field_validator("allowed_hosts", mode="before")
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

    @property
    def store_url(self) -> str:
        return self.store or f"sqlite:///{self.data_dir / 'playhead.db'}"

    @property
    def database_url(self) -> str:
        """Threads of streams in memory would outlive them, so these are in memory too."""
        if self.database is not None:
            return self.database
        return "sqlite://" if self.store_url.startswith("memory:") else f"sqlite:///{self.data_dir / 'threads.db'}"

    @property
    def checkpoints(self) -> str:
        """Where the agent keeps its state; with streams in memory that would outlive them, so it does not."""
        return ":memory:" if self.store_url.startswith("memory:") else str(self.data_dir / "checkpoints.db")

    @property
    def options(self) -> Options:
        """The engine's part of the settings."""
        return Options(**self.model_dump(include=set(Options.__slots__)))
