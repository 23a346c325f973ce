"""Durations as people write them in settings: `7d`, `12h`, `1h30m`, `30s`, `P7D`, or a number of seconds."""

import re
from datetime import timedelta
from typing import Final

from pydantic import TypeAdapter

UNITS: Final = {"w": 7 * 86_400.0, "d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
"""What each unit is in seconds."""

_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[wdhms])", re.ASCII)
_WHOLE: Final = re.compile(rf"(?:{_PART.pattern}\s*)+", re.ASCII)
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_ISO: Final[TypeAdapter[timedelta]] = TypeAdapter(timedelta)


def parse_duration(given: object) -> timedelta:
    """Read a duration, which is never negative.

    Args:
        given: A text as above, a number of seconds, or a timedelta.

    Raises:
        ValueError: It is none; the text says what would be.
    """
    found: timedelta | None = None
    try:
        match given:
            case timedelta():
                found = given
            case bool():
                pass
            case int() | float():
                found = timedelta(seconds=given)
            case str():
                found = _from_text(given.strip())
            case _:
                pass
    except (ValueError, OverflowError):
        found = None
    if found is None or found < timedelta(0):
        raise ValueError(f"expected a duration, as 7d, 12h, 1h30m, 30s, P7D or a number of seconds, found {given!r}")
    return found


def _from_text(text: str) -> timedelta | None:
    if _NUMBER.fullmatch(text):
        return timedelta(seconds=float(text))
    if _WHOLE.fullmatch(text):
        return timedelta(seconds=sum(float(number) * UNITS[unit] for number, unit in _PART.findall(text)))
    return _ISO.validate_python(text) if text[:1] in "Pp" and text else None


def show_duration(length: timedelta) -> str:
    """Write a duration so that `parse_duration` reads it as the same: `1d12h`, `30s`, `0s`."""
    rest = length / timedelta(milliseconds=1)
    whole, parts = round(rest), []
    for unit, seconds in UNITS.items():
        number, whole = divmod(whole, round(seconds * 1000))
        if number and unit != "w":
            parts.append(f"{number}{unit}")
        elif number:  # weeks are only read: 14d is plainer than 2w
            whole += number * round(seconds * 1000)
    return "".join(parts) or "0s"


def about(length: timedelta) -> str:
    """Write a duration for a glance, in its two largest units, rounded down: `3d 4h`, `12m 5s`, `0s`."""
    parts = re.findall(r"\d+[a-z]+", show_duration(timedelta(seconds=int(length.total_seconds()))))
    return " ".join(parts[:2])
