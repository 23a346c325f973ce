"""What a workflow looks like from outside: its JSON Schemas, and its tree to be walked, searched and drawn."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, cast

from pydantic import BaseModel, JsonValue, create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticOmit

from asyncflow.definition import Definition
from asyncflow.errors import NotFound
from asyncflow.handlers import JSON_DIALECT, adapter_of, schema_of
from asyncflow.nodes import Statement
from asyncflow.tree import PSEUDO, Place, Scope, in_order, link, parts_of
from asyncflow.tree import Region as _Region
from asyncflow.tree import end_of as _end_of
from asyncflow.workflow import Workflow

Visit = Callable[[str, Statement[Any]], bool | None]


def docs(workflow: type[Workflow], /) -> dict[str, JsonValue]:
    """Give the JSON Schemas of a workflow: start, state, output, every event and query.

    Returns:
        `{workflow, description, start, state, output, events: {name: {input, output, role, description, awaited_at}},
        queries: {name: {output, description}}}`; every schema is JSON Schema 2020-12, null where there is none. What the runtime
        accepts is what the schemas say.

    Raises:
        DefinitionError: the definition has problems.
    """
    definition = Definition.of(workflow)
    return {
        "workflow": definition.name,
        "description": inspect.getdoc(workflow) if "__doc__" in workflow.__dict__ and workflow.__doc__ else None,
        "start": start_schema(definition),
        "state": {
            "$schema": JSON_DIALECT,
            **workflow.model_json_schema(mode="serialization", schema_generator=_StateSchema),
        },
        "output": schema_of(definition.output, "serialization"),
        "events": {
            spec.name: {
                "input": cast("JsonValue", spec.input.schema),
                "output": None if spec.output is None else schema_of(spec.output, "serialization"),
                "role": cast("JsonValue", spec.role),
                "description": spec.description,
                "awaited_at": cast("JsonValue", list(spec.awaited_at)),
            }
            for spec in sorted(definition.events.values(), key=lambda spec: spec.name)
        },
        "queries": {
            spec.name: {"output": schema_of(spec.output, "serialization"), "description": spec.description}
            for spec in definition.queries.values()
        },
    }


class _StateSchema(GenerateJsonSchema):
    """The schema of what is stored: as it is written, but without computed fields, which a stored state does not have."""

    def computed_field_schema(self, schema: Any) -> JsonSchemaValue:  # noqa: ARG002
        """Leave a computed field out."""
        raise PydanticOmit


def start_model(workflow: type[Workflow]) -> type[BaseModel] | None:
    """The fields without default, and nothing else: what a start over HTTP takes; None when there are none."""
    needed: dict[str, Any] = {
        name: (field.annotation, field) for name, field in workflow.model_fields.items() if field.is_required()
    }
    if not needed:
        return None
    return create_model(f"{workflow.__name__}Start", __config__={"extra": "forbid"}, **needed)


def start_schema(definition: Definition[Any]) -> JsonValue:
    """The schema of a start's body, None when it takes nothing."""
    given = definition.start_input()
    if given is not None:
        return cast("JsonValue", given.schema)
    model = start_model(definition.cls)
    return None if model is None else schema_of(adapter_of(model), "validation")


# -- the tree ----------------------------------------------------------------------------------------------------------


def walk(workflow: type[Workflow] | Statement[Any], visit: Visit, /) -> None:
    """Call *visit* with path and statement for every statement, those before that stand before. `False` does not go inside."""
    for scope, prefix, definition in _roots(workflow):
        _walk(scope, prefix, definition, visit)


def find(workflow: type[Workflow] | Statement[Any], path: str, /) -> Statement[Any]:
    """Give the statement at *path*.

    Raises:
        NotFound: there is none; the text names those that come near.
    """
    found: list[Statement[Any]] = []
    paths: list[str] = []

    def visit(at: str, statement: Statement[Any]) -> bool:
        paths.append(at)
        if at == path and not found:
            found.append(statement)
        return not found and (not at or path.startswith(at) or True)

    walk(workflow, visit)
    if not found:
        near = [one for one in paths if one.rpartition("/")[2] == path.rpartition("/")[2]] or paths
        raise NotFound(f"there is no statement at {path!r}; there are: {', '.join(near[:10])}")
    return found[0]


def _roots(workflow: Any) -> Iterator[tuple[Scope, str, Definition[Any] | None]]:
    if isinstance(workflow, type):
        definition: Definition[Any] = Definition.of(workflow)
        yield definition.tree, "", definition
    else:
        region = _Region("thread", None, None)
        yield link((workflow,), path="", at="", region=region, after=_end_of(region)), "", None


def _walk(scope: Scope, prefix: str, definition: Definition[Any] | None, visit: Visit) -> None:
    closed: list[str] = []
    for place in in_order(scope):
        if any(place.at.startswith(f"{at}/") for at in closed):
            continue
        inside = visit(place.path, place.statement)
        if inside is False:
            closed.append(place.at)
        elif definition is not None and place.at in definition.blanks:
            _walk(definition.blanks[place.at], prefix, definition, visit)


def definition_json(workflow: type[Workflow]) -> dict[str, JsonValue]:
    """Give the tree as JSON: `{kind, name, path, body | cases}`, transparent sections left out."""
    definition = Definition.of(workflow)
    return {
        "kind": "workflow",
        "name": definition.name,
        "path": "",
        "body": cast("JsonValue", _tops_json(definition.tree, definition)),
    }


def _tops_json(scope: Scope, definition: Definition[Any]) -> list[Any]:
    by_statement = {id(place.statement): place for place in scope.places.values() if place.kind not in PSEUDO}
    places = in_order(scope)
    inner = {id(part) for place in places for part in _visible(place.statement, by_statement)}
    return [_json(place, by_statement, definition) for place in places if id(place.statement) not in inner]


def _visible(statement: Any, places: dict[int, Place]) -> Iterator[Any]:
    for part in parts_of(statement):
        if id(part) in places:
            yield part
        else:
            yield from _visible(part, places)


def _bodies(body: Any, places: dict[int, Place], definition: Definition[Any]) -> list[Any]:
    found: list[Any] = []
    for statement in body or ():
        place = places.get(id(statement))
        if place is not None:
            found.append(_json(place, places, definition))
        else:
            found += _bodies(parts_of(statement), places, definition)
    return found


def _json(place: Place, places: dict[int, Place], definition: Definition[Any]) -> dict[str, Any]:
    statement = place.statement
    node: dict[str, Any] = {"kind": place.kind, "name": place.name, "path": place.path}
    if place.cases:
        node["cases"] = [
            {"kind": case.kind, "name": case.name, "path": case.path, "body": _bodies(case.statement.body, places, definition)}
            for case in place.cases
        ]
    elif place.arms:
        parts = statement.arms if place.kind == "if" else statement.cases
        bodies = [part.body for part in parts] + (
            [statement.otherwise] if place.kind == "if" and statement.otherwise is not None else []
        )
        node["cases"] = [
            {"kind": "case", "name": arm.path.rpartition("/")[2], "path": arm.path, "body": _bodies(body, places, definition)}
            for arm, body in zip(place.arms, bodies, strict=True)
        ]
    elif place.kind == "try":
        node["body"] = _bodies(statement.body, places, definition)
        node["cases"] = [
            {"kind": "except", "name": clause.name, "path": clause.path, "body": _bodies(clause.statement.body, places, definition)}
            for clause in place.clauses
        ]
        if statement.final is not None:
            node["finally"] = _bodies(statement.final, places, definition)
    elif place.at in definition.blanks:
        node["body"] = _tops_json(definition.blanks[place.at], definition)
    else:
        body = parts_of(statement)
        if body:
            node["body"] = _bodies(body, places, definition)
    return node
