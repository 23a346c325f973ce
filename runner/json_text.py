"""The one parser for JSON from outside: restricted JSON (rule 5).

A text is looked at from the cheapest check to the dearest: size, depth, then the parse itself. So a hostile one is
refused in milliseconds, mostly before objects are made of it. The parse is the standard library's: of those we have it
is the only one that can tell a doubled key.
"""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any, Final, NoReturn

from asyncflow import limits
from asyncflow.errors import Malformed, TooLarge

_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
"""A string, also one that nobody closes: that is all the rest, so that no byte is looked at twice."""
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEPS: Final = [1 if byte in b"[{" else -1 if byte in b"]}" else 0 for byte in range(256)]
_TOO_DEEP: Final = limits.STATE_DEPTH.__lt__
_SUSPECT: Final = re.compile(rb"\d{16}|[eE]\+?\d{3}|\\u")
"""What a text has that holds an integer beyond 2^53 - 1, a number beyond doubles, a NUL or half a surrogate pair."""


def parse_json(text: bytes) -> Any:
    """Give the value of a JSON text from outside.

    Raises:
        TooLarge: it is longer than 256 KiB.
        Malformed: it is no JSON in UTF-8, or not restricted JSON: deeper than 64, a doubled key, NaN, Infinity, a
            number beyond doubles, an integer beyond 2^53 - 1, half a surrogate pair, a NUL. The text says which.
    """
    if len(text) > limits.BODY_BYTES:
        raise TooLarge(f"expected at most {limits.BODY_BYTES} bytes of JSON, found {len(text)}")
    if _is_too_deep(text):
        raise Malformed(f"expected JSON no deeper than {limits.STATE_DEPTH} arrays and objects")
    try:
        value = json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        found = error.object[error.start]
        raise Malformed(f"expected JSON in UTF-8, found the byte {found:#04x} at {error.start}") from None
    except json.JSONDecodeError as error:
        raise Malformed(f"expected JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError:  # Python's own limit, far above ours
        raise Malformed(_TOO_LARGE) from None
    if _SUSPECT.search(text):
        _look_at_scalars(value)
    return value


def _is_too_deep(text: bytes) -> bool:
    if text.count(b"[") + text.count(b"{") <= limits.STATE_DEPTH:
        return False
    brackets = _STRING.sub(b"", text).translate(None, _NO_BRACKETS)
    return any(map(_TOO_DEEP, accumulate(map(_STEPS.__getitem__, brackets))))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise Malformed(f"expected each key of an object once, found one doubled: {_first_doubled(names)!a}")
    return found


def _first_doubled(names: list[str]) -> str:
    known: set[str] = set()
    for name in names:
        if name in known:
            return name[:100]
        known.add(name)
    return ""


def _refuse_constant(name: str) -> NoReturn:
    raise Malformed(f"expected JSON, found {name}, which is no number of it")


_TOO_LARGE: Final = "expected integers between ±(2^53 - 1), found one beyond them: send it as a string"


def _look_at_scalars(value: Any) -> None:
    """Look at every string and number; a loop of its own, as a hostile text is as deep as may be."""
    level = [value]
    while level:
        below: list[Any] = []
        for one in level:
            kind = type(one)
            if kind is str:
                _check_string(one)
            elif kind is dict:
                below += one
                below += one.values()
            elif kind is list:
                below += one
            elif kind is int and abs(one) > limits.JSON_INTEGER_MAX:
                raise Malformed(_TOO_LARGE)
            elif kind is float and not math.isfinite(one):
                raise Malformed("expected numbers that a double can hold, found one beyond them: send it as a string")
        level = below


def _check_string(text: str) -> None:
    if "\0" in text:
        raise Malformed("expected strings without NUL, found one with it")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Malformed("expected whole characters, found half a surrogate pair") from None
