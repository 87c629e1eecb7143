"""What a store's URL says.

    redis://[user:password@]host[:port][/database]           rediss://  the same over TLS
    unix:///path/to/redis.sock[?db=0]
    redis+sentinel://[user:password@]host[:port],host[:port]…/service[/database]
    redis+cluster://[user:password@]host[:port],host[:port]…

Settings follow as a query: ``replicas=1`` (acknowledge what so many replicas have), ``prefix=playhead``,
``allow_eviction=true``, ``tls=true`` (Sentinel, Cluster), ``ca=/path/to/ca.pem``, ``verify=false``; for Sentinels that
want a password of their own ``sentinel_username`` and ``sentinel_password``.
"""

import re
import ssl
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from playhead.errors import InvalidSetting
from playhead.stores.redis.wire import Endpoint, Login

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster")
_HOST = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<name>[^\[\]:]*))(?::(?P<port>[0-9]{1,5}))?")
_PORTS = {"redis+sentinel": 26379}
_YES_NO = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class Address:
    """One URL, taken apart."""

    kind: Literal["single", "sentinel", "cluster"]
    endpoints: tuple[Endpoint, ...]
    login: Login
    sentinel_login: Login = field(default_factory=Login)
    service: str = ""
    prefix: str = "playhead"
    replicas: int = 0
    allow_eviction: bool = False

    def __str__(self) -> str:
        """For messages: without user and password."""
        return ", ".join(map(str, self.endpoints)) + (f" ({self.service})" if self.service else "")

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Raises: InvalidSetting; its message never holds the password."""
        try:
            return _parsed(url)
        except ValueError as error:
            shape = "redis://[user:password@]host[:port][/database]"
            raise InvalidSetting(
                f"the store's URL is not understood: {error}; it looks like {shape}", setting="store"
            ) from None


def _parsed(url: str) -> Address:
    try:
        parts = urlsplit(url)
    except ValueError:  # its words may quote the password
        raise ValueError("there is something in its user, password or host that does not belong there") from None
    if parts.scheme not in SCHEMES:
        raise ValueError(f"a Redis store begins with {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    if parts.fragment or (parts.scheme != "unix" and "@" in parts.path + parts.query):
        raise ValueError("in a user name, a password and a setting / ? # @ are written %2F %3F %23 %40")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = (unquote(part) for part in credentials.partition(":"))
    if username and not password:
        raise ValueError("a user name wants a password; a password alone is written :password@host")
    path = unquote(parts.path)
    service, database = "", options.pop("db", "")
    endpoints: tuple[Endpoint, ...]
    if parts.scheme == "unix":
        if not path or hosts:
            raise ValueError("unix:// wants the whole path of a socket: unix:///path/to/redis.sock")
        endpoints = (Endpoint("", 0, path),)
    else:
        default = _PORTS.get(parts.scheme, 6379)
        endpoints = tuple(_endpoint(host, default) for host in hosts.split(","))
        if "," in hosts and not all(hosts.split(",")):
            raise ValueError("between two commas there is no host")
        if parts.scheme == "redis+sentinel":
            service, _, path = path.strip("/").partition("/")
            if not service:
                raise ValueError("redis+sentinel:// wants the name of the service: …/mymaster")
        database = path.strip("/") or database
        if len(endpoints) > 1 and parts.scheme in ("redis", "rediss"):
            raise ValueError("several hosts are for redis+sentinel:// or redis+cluster://")
    if database and (not database.isdecimal() or (parts.scheme == "redis+cluster" and int(database))):
        raise ValueError("the database is a number, and a cluster has only number 0")
    tls = _tls(options, is_asked=parts.scheme == "rediss")
    prefix = options.pop("prefix", "playhead")
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", prefix):
        raise ValueError("the prefix is 1 to 64 letters, digits and _ . : -")
    replicas = options.pop("replicas", "0")
    if not replicas.isdecimal():
        raise ValueError("replicas is a number")
    address = Address(
        {"redis+sentinel": "sentinel", "redis+cluster": "cluster"}.get(parts.scheme, "single"),  # type: ignore[arg-type]
        endpoints,
        Login(username or None, password or None, int(database or 0), tls),
        Login(options.pop("sentinel_username", None), options.pop("sentinel_password", None), 0, tls),
        service,
        prefix,
        int(replicas),
        _flag(options, "allow_eviction"),
    )
    if options:
        raise ValueError(f"there is no option {', '.join(sorted(options))}")
    return address


def _endpoint(text: str, default_port: int) -> Endpoint:
    found = _HOST.fullmatch(text)
    port = int(found["port"] or default_port) if found else 0
    if found is None or not 0 < port < 65_536:  # without what was found there, which may be a piece of a password
        raise ValueError("a host is followed by nothing, or by a port from 1 to 65535")
    return Endpoint((found["ipv6"] or found["name"]).lower() or "localhost", port)


def _tls(options: dict[str, str], *, is_asked: bool) -> ssl.SSLContext | None:
    authority, verifies = options.pop("ca", None), _flag(options, "verify", default=True)
    if not (_flag(options, "tls") or is_asked):
        return None
    try:
        context = ssl.create_default_context(cafile=authority)
    except OSError as error:
        raise ValueError(f"the file of ca= cannot be read: {error.strerror}") from error
    if not verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _flag(options: dict[str, str], name: str, *, default: bool = False) -> bool:
    text = options.pop(name, None)
    if text is None:
        return default
    if text.lower() not in _YES_NO:
        raise ValueError(f"{name} is true or false")
    return _YES_NO[text.lower()]
