"""What the drivers have in common: how times, labels and history entries become columns, and what is refused."""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import JsonValue
from pydantic_core import PydanticSerializationError, to_json

from asyncflow import limits
from asyncflow.errors import Malformed, TooLarge
from runner.stores.base import RECORD_BYTES_MAX, Record

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# What can be given back: another zone may reach a day beyond.
_DAYS_FIRST: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH).days
_DAYS_LAST: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH).days
_PROCESS = re.compile(rf"[A-Za-z0-9_-]{{1,{limits.ID_CHARACTERS}}}")


def micros(moment: datetime) -> int:
    """Return the microseconds from 1970 to *moment*, exactly; `Malformed` if it has no zone, or is no year of UTC."""
    try:
        since = moment - _EPOCH
    except TypeError:
        raise Malformed(f"a time has a zone, this one has none: {moment!r}") from None
    if not _DAYS_FIRST <= since.days <= _DAYS_LAST:
        raise Malformed(f"a time lies in the years 1 to 9999 of UTC, this one does not: {moment!r}")
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def micros_or_none(moment: datetime | None) -> int | None:
    """Return `micros` of *moment*, or None."""
    return None if moment is None else micros(moment)


def moment(since: int) -> datetime:
    """Return the instant *since* microseconds after 1970, in UTC."""
    return _EPOCH + timedelta(microseconds=since)


def moment_or_none(since: int | None) -> datetime | None:
    """Return `moment` of *since*, or None."""
    return None if since is None else _EPOCH + timedelta(microseconds=since)


def utc_now() -> datetime:
    """Return the host's clock, in UTC."""
    return datetime.now(UTC)


def check_record(record: Record) -> None:
    """Refuse a record that not every store could keep.

    Raises:
        TooLarge: Document and state are over `RECORD_BYTES_MAX` together.
        Malformed: A label is no JSON value, or a process has a name that `enter` would refuse.
    """
    size = len(record.document) + len(record.state)
    if size > RECORD_BYTES_MAX:
        raise TooLarge(f"{record.workflow}/{record.id} has {size} bytes, a store keeps at most {RECORD_BYTES_MAX}")
    for name, value in record.labels.items():
        if not _is_text(name) or not _is_label(value):
            raise Malformed(f"{record.workflow}/{record.id}: label {name!r} is {value!r}, which is no plain JSON value")
    for process in record.holders:
        check_process(process)


def _is_label(value: object) -> bool:
    match value:
        case None | bool():
            return True
        case str():
            return _is_text(value)
        case int():
            return abs(value) <= limits.JSON_INTEGER_MAX
        case float():
            return math.isfinite(value)
        case _:
            return False


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def check_process(process: str) -> None:
    """Refuse a process name that cannot be a file name and a word: `Malformed`."""
    if not _PROCESS.fullmatch(process):
        raise Malformed(f"a process is named by [A-Za-z0-9_-]{{1,{limits.ID_CHARACTERS}}}, not {process!r}")


def encode_entries(entries: Sequence[Mapping[str, JsonValue]]) -> tuple[int, bytes]:
    """Return the last `n` of *entries* and their JSON text.

    Raises:
        Malformed: One is no JSON, or has no `n` of its own that grows.
    """
    numbers = [entry.get("n") for entry in entries]
    last = 0
    for number in numbers:
        if not isinstance(number, int) or isinstance(number, bool) or number <= last:
            raise Malformed(f"the entries of a write have growing integers `n` > 0, these have {numbers}")
        last = number
    try:
        return last, to_json(entries, inf_nan_mode="null")
    except (PydanticSerializationError, ValueError) as error:
        raise Malformed(f"history entries are JSON: {error}") from error
