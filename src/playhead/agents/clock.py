"""The one built-in tool: harmless, offline, and a real answer that no model knows by itself."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from langchain_core.tools import tool


@tool
def clock(timezone: str = "UTC") -> str:
    """Tell the present date and time in a time zone, named as in the IANA database (for example Europe/Berlin)."""
    if timezone == "UTC":  # without a look at the database, which small systems lack
        return datetime.now(UTC).isoformat(timespec="seconds")
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError):
        return f"There is no time zone named {timezone!r}."
    return datetime.now(zone).isoformat(timespec="seconds")
