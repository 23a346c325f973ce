"""The state of a workflow as JSON text: written by pydantic, restricted (RFC 7493), validated from that text (rule 5)."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, SchemaSerializer, SchemaValidator, from_json, to_json

from asyncflow import limits
from asyncflow.errors import InvalidState

if TYPE_CHECKING:
    from asyncflow.workflow import Workflow

SUSPECT: Final = re.compile(rb"\d{16}|\d[eE]\+?\d{3}|\\u0000|NaN|Infinity")
"""What JSON text must have in it to break the restrictions; without it one look is enough."""

DIGITS_SHOWN: Final = 20
"""Of an integer that is too large: enough to find it by."""
PATH_SHOWN: Final = 6
"""Of the names that lead to a fault: one that lies too deep has a hundred."""
FAULT_CHARACTERS: Final = 500
"""Of what a serializer says: it may quote the whole value."""


def check_restricted(text: bytes) -> None:
    """Check that *text* is JSON every store keeps: no NaN, no integer beyond 2^53 - 1, no NUL, no duplicate key, depth 64.

    Raises:
        InvalidState: with what was found.
    """
    # Two colons are the least that a doubled key has.
    if SUSPECT.search(text) is not None or text.count(b":") > 1 or text.count(b"{") + text.count(b"[") > limits.STATE_DEPTH:
        _check_slowly(text)


def _refuse(what: str, path: tuple[str, ...] = ()) -> NoReturn:
    shown = "/".join(path[:PATH_SHOWN]) + ("/…" if len(path) > PATH_SHOWN else "")
    raise InvalidState(f"{f'{shown}: ' if path else ''}{what} cannot be stored (restricted JSON, RFC 7493)")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        _refuse(f"the doubled key {next(name for name in names if names.count(name) > 1)!r:.100}")
    return found


def _check_slowly(text: bytes) -> None:
    try:
        value = json.loads(text, parse_constant=_constant, object_pairs_hook=_unique)
    except RecursionError:
        _refuse(f"JSON deeper than {limits.STATE_DEPTH}")
    except ValueError as error:
        if isinstance(error, InvalidState | json.JSONDecodeError | UnicodeDecodeError):
            raise
        _refuse("an integer of thousands of digits")  # more than Python reads
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > limits.STATE_DEPTH + 1:
            _refuse(f"JSON deeper than {limits.STATE_DEPTH}", _path_to(value, depth=depth - 1))
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                if fault := next(filter(None, map(_fault_of, one)), ""):
                    _refuse(fault, _path_to(value, one))
                below += one.values()
            elif isinstance(one, list):
                below += one
            elif fault := _fault_of(one):
                _refuse(fault, _path_to(value, one))
        level = below


def _constant(name: str) -> float:
    return math.nan if name == "NaN" else float(name)


def _fault_of(value: Any) -> str:
    """Why a scalar, or a key, cannot be stored; empty where it can."""
    if isinstance(value, str):
        return "a NUL character" if "\0" in value else ""
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) <= limits.JSON_INTEGER_MAX:
            return ""
        digits = str(value)
        shown = digits if len(digits) <= DIGITS_SHOWN else f"{digits[:DIGITS_SHOWN]}… ({len(digits)} digits)"
        return f"the integer {shown}, beyond ±(2^53 - 1),"
    if isinstance(value, float) and not math.isfinite(value):
        return f"the number {'NaN' if math.isnan(value) else 'Infinity' if value > 0 else '-Infinity'}"
    return ""


def _path_to(root: Any, wanted: Any = None, *, depth: int | None = None) -> tuple[str, ...]:
    """Where *wanted* is in *root*, or what is first found at a *depth*: asked for a message alone."""
    stack: list[tuple[tuple[str, ...], Any]] = [((), root)]
    while stack:
        path, one = stack.pop()
        if one is wanted if depth is None else len(path) == depth:
            return path
        named = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        stack += reversed([((*path, str(name)), value) for name, value in named])
    return ()


def _has(schema: Any, types: frozenset[str]) -> bool:
    """Whether a core schema has one of these types, or a dict whose keys are no texts."""
    if isinstance(schema, dict):
        kind = schema.get("type")
        if (isinstance(kind, str) and kind in types) or (kind == "dict" and schema.get("keys_schema", {}).get("type") != "str"):
            return True
        return any(_has(value, types) for name, value in schema.items() if name not in ("metadata", "serialization", "cls"))
    if isinstance(schema, list | tuple):
        return any(_has(value, types) for value in schema)
    return False


_UNBOUND: Final = frozenset({"any", "json", "is-instance", "definition-ref", "generator", "callable"})
"""Anything may be in there: JSON of any depth, and dicts with keys of any type, two of which may be one text."""
_LOOSE: Final = _UNBOUND | {"float"}
"""What lets through what only a close look finds: also a float NaN, which JSON text hides by a null."""


_BYTES_HINT: Final = " (bytes of a model go by its own config: ser_json_bytes='base64', val_json_bytes='base64')"


class StateCodec:
    """Writes and reads the state of one workflow class."""

    __slots__ = ("_fields", "_loose", "_serializer", "_unbound", "_validator", "cls", "names")

    def __init__(self, cls: type[Workflow]) -> None:
        self.cls = cls
        cls.model_rebuild()
        self._serializer: SchemaSerializer = cls.__pydantic_serializer__
        self._validator: SchemaValidator = cls.__pydantic_validator__  # type: ignore[assignment]
        self._loose = _has(cls.__pydantic_core_schema__, _LOOSE)
        self._unbound = _has(cls.__pydantic_core_schema__, _UNBOUND)
        self.names = {field: info.serialization_alias or info.alias or field for field, info in cls.model_fields.items()}
        """How each field is called in the JSON."""
        self._fields = {
            name
            for field, info in cls.model_fields.items()
            for name in (field, info.alias, info.validation_alias, info.serialization_alias)
            if isinstance(name, str)
        }

    def dump(self, state: Workflow, extra: dict[str, Any] | None = None) -> bytes:
        """Write the state; *extra* are fields of the stored document that the class does not have.

        Raises:
            InvalidState: a value does not fit its field, or is none that JSON keeps.
        """
        try:
            if self._loose:
                # By way of values, where a NaN in a field that may be null is still one.
                values = self._serializer.to_python(state, mode="json", by_alias=True, round_trip=True, warnings="error")
                text = to_json(values, inf_nan_mode="constants")
                _check_slowly(text)
                if self._unbound:
                    # The way by values has let one of two equal keys go.
                    _check_slowly(self._serializer.to_json(state, by_alias=True, round_trip=True, warnings="error"))
            else:
                text = self._serializer.to_json(state, by_alias=True, round_trip=True, warnings="error")
                if SUSPECT.search(text) is not None:
                    _check_slowly(text)
            if extra:
                text = to_json({**from_json(text), **extra})
        except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
            if isinstance(error, InvalidState):
                raise
            hint = _BYTES_HINT if "utf-8" in str(error) else ""
            said = f"{self._field_at_fault(state)}{error!s:.{FAULT_CHARACTERS}}{hint}"
            raise InvalidState(f"the state of {self.cls.__name__} cannot be written as JSON: {said}") from error
        return text

    def _field_at_fault(self, state: Workflow) -> str:
        for field in self.names:
            try:
                self._serializer.to_json(state, include={field}, by_alias=True, round_trip=True, warnings="error")
            except (ValueError, TypeError, RecursionError):
                return f"the field {field!r}: "
        return ""

    def parse(self, text: bytes) -> tuple[Workflow, dict[str, Any] | None]:
        """Read the state from its JSON text, and the fields that the class does not have.

        Raises:
            InvalidState: it does not validate.
        """
        try:
            return self._validator.validate_json(text, by_alias=True, by_name=True), None
        except ValidationError as error:
            if all(one["type"] != "extra_forbidden" or len(one["loc"]) != 1 for one in error.errors(include_url=False)):
                raise self._invalid(error) from error
        except Exception as error:
            raise self._broken(error) from error
        values: dict[str, Any] = from_json(text)
        extra = {name: value for name, value in values.items() if name not in self._fields}
        known = to_json({name: value for name, value in values.items() if name in self._fields})
        try:
            return self._validator.validate_json(known, by_alias=True, by_name=True), extra
        except ValidationError as error:
            raise self._invalid(error) from error
        except Exception as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> InvalidState:
        # A validator may raise anything; pydantic takes only some of it for a refusal.
        return InvalidState(f"a validator of {self.cls.__name__} raised {type(error).__name__}: {error}")

    def _invalid(self, error: ValidationError) -> InvalidState:
        said = "; ".join(
            f"{'/'.join(str(part) for part in one['loc']) or '(state)'}: {one['msg']}"
            for one in error.errors(include_url=False, include_context=False, include_input=False)[:5]
        )
        return InvalidState(f"the state does not validate as {self.cls.__name__}: {said}")
