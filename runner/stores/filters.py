"""The filter of a list: AIP-160 without OR, NOT, parentheses and functions. Parsed here once, for every store.

    status = Paused AND created_at >= "2026-01-31T00:00:00Z" AND labels.customer = "ann" AND state.cart.0.price < 5

A field is `status`, `created_at`, `updated_at`, `labels.NAME` or `state.PATH`. A name with other characters than
letters, digits, `_` and `-` stands in double quotes (`labels."order no"`); an unquoted number in a path is the index in
a list, a quoted one is a key. A value is a string (quotes may be left out where it is one word), a number, `true`,
`false`, `null`, or an RFC 3339 time. Where a field is missing, or holds null, no comparison fits it but `= null` for a
null; `!= null` means that there is a value. Values of different types differ and have no order; so do true and false,
and lists and objects, which equal nothing. Strings are ordered by code point.
"""

import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from operator import ge, gt, le, lt
from typing import Any, Final, TypeAlias

from pydantic_core import from_json

from asyncflow import limits
from asyncflow.errors import Malformed
from runner.stores.encoding import micros

# A filter is typed by a person or built from a form; a longer one is an attack on the parser of a store.
FILTER_CHARACTERS_MAX: Final = 2_000
# Every comparison may cost a parse of each state that is looked at.
COMPARISONS_MAX: Final = 20

Value: TypeAlias = str | int | float | bool | None

TIMES: Final = ("created_at", "updated_at")
ORDERS: Final = ("<", "<=", ">", ">=")

_AND = re.compile(r"AND(?=\s)")
_SPACE = re.compile(r"\s*")
_ROOT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SEGMENT = re.compile(r'\.(?:([A-Za-z0-9_-]+)|"([^"\\\x00-\x1f]*)")')
_OPERATOR = re.compile(r"!=|<=|>=|=|<|>")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'', re.DOTALL)
_WORD = re.compile(r"[^\s\"'()<>=!,]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")
_WORDS: Final[Mapping[str, Value]] = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`FIELD OPERATOR VALUE`. `path` leads into the labels (one name) or the state; times are microseconds."""

    field: str
    path: tuple[str | int, ...]
    operator: str
    value: Value


Filter: TypeAlias = tuple[Comparison, ...]


@lru_cache(maxsize=256)
def parse_filter(text: str, filterable: frozenset[str], store: str) -> Filter:
    """Parse a filter for the *store* of that name, which can filter the fields *filterable*.

    Returns:
        All its comparisons, which must all fit; none for an empty text.

    Raises:
        Malformed: It cannot be read, or names a field this store cannot filter. The message says what and where.
    """
    if len(text) > FILTER_CHARACTERS_MAX:
        raise Malformed(f"a filter has at most {FILTER_CHARACTERS_MAX} characters, this one {len(text)}")
    found = tuple(_Reader(text).comparisons())
    if len(found) > COMPARISONS_MAX:
        raise Malformed(f"a filter has at most {COMPARISONS_MAX} comparisons, this one {len(found)}")
    for comparison in found:
        if comparison.field not in filterable:
            name = ".".join([comparison.field, *map(str, comparison.path)])
            allowed = ", ".join(sorted(filterable))
            raise Malformed(f"the {store} store cannot filter by {name!r}; it can by: {allowed}")
    return found


class _Reader:
    """One pass over the text, left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def comparisons(self) -> list[Comparison]:
        found: list[Comparison] = []
        self._skip_space()
        while self._at < len(self._text):
            if found and not self._take(_AND):
                raise self._refusal("expected AND")
            self._skip_space()
            found.append(self._comparison())
            self._skip_space()
        return found

    def _comparison(self) -> Comparison:
        start = self._at
        field, path = self._field()
        self._skip_space()
        operator = self._take(_OPERATOR)
        if operator is None:
            raise self._refusal("expected one of = != < <= > >=")
        self._skip_space()
        value_at = self._at
        value = self._value()
        if field in TIMES:
            value = self._time(value, value_at)
        elif field == "status" and (not isinstance(value, str) or operator.group() in ORDERS):
            raise self._refusal("a status is compared with a name, by = or !=", start)
        elif operator.group() in ORDERS and (value is None or isinstance(value, bool)):
            raise self._refusal("true, false and null have no order: compare them with = or !=", start)
        return Comparison(field, path, operator.group(), value)

    def _field(self) -> tuple[str, tuple[str | int, ...]]:
        start = self._at
        root = self._take(_ROOT)
        if root is None:
            raise self._refusal("expected a field")
        field = root.group()
        if field in ("NOT", "OR"):
            raise self._refusal(f"{field} is not supported, only AND is", start)
        path: list[str | int] = []
        while segment := self._take(_SEGMENT):
            bare, quoted = segment.groups()
            path.append(quoted if bare is None else int(bare) if bare.isdecimal() and len(bare) < 10 else bare)
        if field == "labels" and len(path) == 1:
            return field, (str(path[0]),)
        if field in ("status", *TIMES) and not path:
            return field, ()
        if field == "state" and path:
            return field, tuple(path)
        raise self._refusal("a field is status, created_at, updated_at, labels.NAME or state.PATH", start)

    def _value(self) -> Value:
        start = self._at
        if text := self._take(_STRING):
            return re.sub(r"\\(.)", r"\1", text.group(1) if text.group(1) is not None else text.group(2), flags=re.DOTALL)
        word = self._take(_WORD)
        if word is None:
            raise self._refusal("expected a value")
        bare = word.group()
        if bare in _WORDS:
            return _WORDS[bare]
        if bare == "AND":
            raise self._refusal("expected a value", start)
        if not _NUMBER.fullmatch(bare):
            return bare
        number = float(bare) if set(bare) & set(".eE") else int(bare)
        if isinstance(number, int) and abs(number) > limits.JSON_INTEGER_MAX:
            raise self._refusal("an integer lies within ±(2^53 - 1)", start)
        if not math.isfinite(number):
            raise self._refusal("no number of JSON is that large", start)
        return number

    def _time(self, value: Value, at: int) -> int:
        if isinstance(value, str) and _TIME.fullmatch(value):
            with suppress(ValueError, OverflowError):  # the 31st of June
                return micros(datetime.fromisoformat(value.upper()))
        raise self._refusal('expected a time with its zone, as "2026-01-31T09:00:00Z"', at)

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found:
            self._at = found.end()
        return found

    def _skip_space(self) -> None:
        self._take(_SPACE)

    def _refusal(self, why: str, at: int | None = None) -> Malformed:
        where = self._at if at is None else at
        rest = self._text[where : where + 30] or "the end"
        return Malformed(f"filter: {why}, at character {where + 1}: {rest}")


# -- the filter without a database -------------------------------------------------------------------------------------

_ORDERING: Final[dict[str, Callable[[Any, Any], bool]]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
# A value that is not there, in contrast to a null.
_MISSING: Final = object()


def matches(
    comparisons: Filter,
    *,
    status: str,
    created_at: datetime,
    updated_at: datetime,
    labels: Mapping[str, Value],
    state: bytes,
) -> bool:
    """Tell whether an instance with these columns and this state fits all *comparisons*: what SQL must agree with."""
    parsed: object = _MISSING
    if any(comparison.field == "state" for comparison in comparisons):
        with suppress(ValueError):  # a state that is no JSON has no fields
            parsed = from_json(state, allow_inf_nan=False)
    for comparison in comparisons:
        found: object
        match comparison.field:
            case "status":
                found = status
            case "created_at":
                found = micros(created_at)
            case "updated_at":
                found = micros(updated_at)
            case "labels":
                found = labels.get(str(comparison.path[0]), _MISSING)
            case _:
                found = _at_path(parsed, comparison.path)
        if not _compares(found, comparison.operator, comparison.value):
            return False
    return True


def _at_path(value: object, path: tuple[str | int, ...]) -> object:
    for step in path:
        match value, step:
            case dict(), str():
                value = value.get(step, _MISSING)
            case list(), int():
                value = value[step] if step < len(value) else _MISSING
            case _:
                return _MISSING
    return value


def _compares(found: object, operator: str, value: Value) -> bool:
    if found is _MISSING:
        return False
    if value is None:
        return (found is None) == (operator == "=")
    if found is None:
        return False
    alike = _kind(found) == _kind(value)
    if operator in ORDERS:
        return alike and _ORDERING[operator](found, value)
    return (alike and found == value) == (operator == "=")


def _kind(value: object) -> str:
    match value:
        case bool():  # before int, of which it is one in Python, but not in JSON
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case _:
            return "other"
