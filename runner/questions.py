"""Whether the filter of a list asks for what there is: one that cannot fit anything is refused, not answered with nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from asyncflow.definition import Definition
from asyncflow.errors import Malformed
from runner.stores.filters import TIMES, Comparison, parse_filter

FIELDS: Final = frozenset({"status", *TIMES, "labels", "state"})
"""All that a filter may name somewhere; which of them a store can filter by it says itself."""


def check_filter(text: str | None, definitions: Collection[Definition[Any]]) -> None:
    """Look whether a filter names labels that the workflows have, and compares numbers with what is written as one.

    Raises:
        Malformed: it does not, or cannot be read; the text names what is wrong.
    """
    if not text or not definitions:
        return
    for one in parse_filter(text, FIELDS, "any"):
        number = isinstance(one.value, int | float) and not isinstance(one.value, bool)
        if one.field == "labels":
            _check_label(one, definitions)
        elif one.field == "state" and number and one.operator != "!=":
            _check_number(one, definitions)


def _check_label(one: Comparison, definitions: Collection[Definition[Any]]) -> None:
    known = sorted({label for definition in definitions for label in definition.labels})
    if one.path[0] not in known:
        who = ", ".join(definition.name for definition in definitions)
        raise Malformed(f"filter: {who} has no label {one.path[0]!r}; there are: {', '.join(known) or 'none'}")


def _check_number(one: Comparison, definitions: Collection[Definition[Any]]) -> None:
    kinds: set[str] = set()
    for definition in definitions:
        schema = definition.cls.model_json_schema(mode="serialization")
        kinds |= _kinds(schema, schema, one.path)
    if kinds - {"null"} == {"string"}:
        name = ".".join(map(str, ("state", *one.path)))
        raise Malformed(
            f"filter: {name} is written as text in JSON (as a Decimal is), so {one.operator} {one.value} fits none: "
            "put the value into quotes; texts are ordered by their characters, not as numbers"
        )


def _kinds(schema: Any, root: dict[str, Any], path: Sequence[str | int]) -> set[str]:
    """What types of JSON there may be at a path; "?" stands for what cannot be told."""
    if not isinstance(schema, dict):
        return {"?"}
    if "$ref" in schema:
        return _kinds(root.get("$defs", {}).get(str(schema["$ref"]).rpartition("/")[2]), root, path)
    if isinstance(choices := schema.get("anyOf", schema.get("oneOf")), list):
        return {kind for choice in choices for kind in _kinds(choice, root, path)}
    if not path:
        kind = schema.get("type", "?")
        return set(kind) if isinstance(kind, list) else {str(kind)}
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        return _kinds(schema.get("items"), root, rest)
    return _kinds(schema.get("properties", {}).get(step, schema.get("additionalProperties")), root, rest)
