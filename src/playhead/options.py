"""The engine's settings, in one frozen value. Names carry units; defaults are what most people want."""

from dataclasses import dataclass

from playhead.errors import InvalidSetting
from playhead.store import StoreOptions

_MAX = 1e12


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of a Playhead.

    Attributes:
        lease_s: how long a silent process is still taken for alive; its streams are closed ``interrupted``
            within this plus 1 s.
        event_max_bytes, stream_max_bytes: larger ones are refused with a clear error.
        live_per_owner_max, readers_per_owner_max: limits for one owner (readers: in this process); None = no limit.
        retention_s: how long a closed stream stays readable. A start may choose its own.
        expired_for_s: how long after that its id answers ``expired`` before it is unknown.
        settle_within_s: how much longer a stream that nobody could settle is kept.
        cancel_grace_s: how long a cancelled source may take to stop before it is abandoned and fenced.
        store_patience_s: how long producers and readers wait for a store that is away.
        cache_max_bytes: memory for batches that readers of this process share.
    """

    lease_s: float = 5.0
    event_max_bytes: int = 1024 * 1024
    stream_max_bytes: int = 256 * 1024 * 1024
    live_per_owner_max: int | None = None
    readers_per_owner_max: int | None = None
    retention_s: float = 86_400.0
    expired_for_s: float = 7 * 86_400.0
    settle_within_s: float = 86_400.0
    cancel_grace_s: float = 5.0
    store_patience_s: float = 30.0
    cache_max_bytes: int = 8 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not 0 < value < _MAX:
                raise InvalidSetting(
                    f"{name} must be more than 0 and less than {_MAX:.0e}, not {value!r}", setting=name
                )

    @property
    def store(self) -> StoreOptions:
        return StoreOptions(lease_s=self.lease_s, stream_max_bytes=self.stream_max_bytes)
