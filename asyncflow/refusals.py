"""What is said of an input that does not fit: in the words of JSON, as its sender knows it, and never of Python."""

from __future__ import annotations

from typing import Any, Final

from jsonschema.exceptions import ValidationError
from pydantic_core import to_json

INPUT_ERROR_CHARACTERS: Final = 500
"""A message quotes what it found, which may be the whole input."""
CHOICES_SHOWN: Final = 20
"""Of an enumeration: a country is one of two hundred."""


def refusal(error: ValidationError) -> dict[str, str]:
    """Give path and message of one place that a schema refuses."""
    path = "/".join(str(part) for part in error.absolute_path)
    return {"path": path, "message": _cut(_said(error))}


def missing(schema: Any) -> dict[str, str]:
    """Give path and message of an input that is not there at all, though *schema* wants one."""
    return {"path": "", "message": _cut(f"expected a body: {in_words(schema)}, found none")}


def in_words(schema: Any) -> str:
    """Say in a few words what a schema takes: `{name, count}`, `integer or null`; behind `=` its default."""
    if not isinstance(schema, dict):
        return ""
    words = _in_words(schema)
    return f"{words} = {_json(schema['default'])}" if "default" in schema else words


def _in_words(schema: dict[str, Any]) -> str:
    if "properties" in schema:
        return "{" + ", ".join(schema["properties"]) + "}"
    for choice in ("anyOf", "oneOf"):
        if isinstance(schema.get(choice), list):
            return " or ".join(in_words(one) for one in schema[choice])
    if "enum" in schema or "const" in schema:
        return " or ".join(map(str, schema.get("enum", [schema.get("const")])))
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    kind = schema.get("type", "anything")
    return " or ".join(map(str, kind)) if isinstance(kind, list) else str(kind)


def _said(error: ValidationError) -> str:
    found: Any = error.instance
    wanted: Any = error.validator_value
    if error.validator == "type":
        kinds = [wanted] if isinstance(wanted, str) else list(wanted)
        return f"expected {' or '.join(map(str, kinds))}, found {_json(found)}"
    if error.validator in ("enum", "const"):
        choices = list(wanted)[:CHOICES_SHOWN] if error.validator == "enum" else [wanted]
        more = " …" if error.validator == "enum" and len(wanted) > CHOICES_SHOWN else ""
        return f"expected {' or '.join(map(_json, choices))}{more}, found {_json(found)}"
    # All others begin with what was found, as Python writes it.
    written = repr(found)
    return _json(found) + error.message.removeprefix(written) if error.message.startswith(written) else error.message


def _json(value: Any) -> str:
    return to_json(value, inf_nan_mode="constants").decode()


def _cut(text: str) -> str:
    return text if len(text) <= INPUT_ERROR_CHARACTERS else text[:INPUT_ERROR_CHARACTERS] + "…"
