"""What can be wrong with a definition: every problem at once, each with path and source line."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

from pydantic import AliasChoices, BaseModel

from asyncflow.errors import Problem
from asyncflow.handlers import (
    GENERATOR,
    MISSING,
    Signature,
    awaited_result,
    declared_events,
    is_union,
    members_of,
    signature_of,
    type_of_result,
)
from asyncflow.tree import Place, Region

if TYPE_CHECKING:
    from asyncflow.definition import Definition

BLOCKING: Final = frozenset({"step", "select", "waitevent", "waitfor", "waituntil", "parallel", "foreach", "join"})
"""Statements at which a thread may stand; a loop without one can never block."""
LEAVING: Final = frozenset({"break", "return", "raise"})


class DefinitionWarning(UserWarning):
    """A definition that works, but hardly as meant."""


def check(definition: Definition[Any]) -> list[Problem]:
    """Give every problem of a definition that was just built."""
    problems = list(definition.problems)
    for place in definition.places():
        problems += _written(place)
        check_place = _CHECKS.get(place.kind)
        if check_place is not None:
            problems += [_problem(place, text) for text in check_place(definition, place)]
    problems += _events(definition)
    problems += _class(definition)
    unique = {(one.path, one.message, one.source): one for one in problems}
    return list(unique.values())


def _problem(place: Place, text: str, source: str = "", path: str | None = None) -> Problem:
    return Problem(path=place.path if path is None else path, message=text, source=source or place.source)


def _written(place: Place) -> Iterator[Problem]:
    """What the constructors of a statement and its parts have noted."""
    statement = place.statement
    if statement is None or place.kind in ("again", "tried", "end"):
        return
    if place.kind in ("section", "except"):
        return  # noted when it was linked; with its Try
    parts = [statement, *getattr(statement, "cases", ()), *getattr(statement, "arms", ()), *getattr(statement, "handlers", ())]
    for part in parts:
        for text in part.problems:
            yield _problem(place, text, part.source)
    if not getattr(type(statement), "available", True):
        yield _problem(place, f"{type(statement).__name__} comes with a later release: it is not there yet")


def _arity(function: Callable[..., Any] | None, count: int, what: str) -> Iterator[str]:
    if function is None:
        return
    signature = signature_of(function)
    if signature.is_async:
        yield f"{what} must be a plain function, this one is async: do what takes time in a Step"
    elif signature.is_generator:
        yield f"{what} {GENERATOR}"
    elif not signature.takes(count):
        wants = "nothing" if count == 0 else f"{count} value{'s' if count > 1 else ''}"
        yield f"{what} is called with {wants}, this one takes {_counted(signature)}"


def _counted(signature: Signature) -> str:
    most = "any number" if signature.variadic else str(len(signature.parameters))
    return most if signature.required == len(signature.parameters) else f"{signature.required} to {most}"


# -- steps -------------------------------------------------------------------------------------------------------------


def _step(definition: Definition[Any], place: Place) -> Iterator[str]:
    step = place.statement
    if step.action is None:
        return
    signature = signature_of(step.action)
    for what, function in (("action", step.action), ("undo", step.undo)):
        if function is not None and signature_of(function).is_generator:
            yield f"its {what} {GENERATOR}"
    if not signature.takes(len(step.args)):
        yield f"its action takes {_counted(signature)} values, found {len(step.args)}"
    if step.undo is not None and not signature_of(step.undo).takes(len(step.args)):
        yield f"its undo is called with the action's {len(step.args)} values, it takes {_counted(signature_of(step.undo))}"
    if step.undo is not None and _in_bare_loop(place.region):
        yield "an undo in a For without a Try inside that loop would gather entries without end: put a Try into the loop"
    yield from _arity(step.then, 1, "then")
    if step.idempotent is False and step.retry is not None:
        yield "a step with idempotent=False is never repeated by itself: leave out its retry="
    if step.into is not None:
        yield from _into(definition, step.into, awaited_result(signature))
    if not place.plain:
        try:
            type_of_result(definition.cls, step)
        except (TypeError, KeyError) as error:
            yield f"its result: {error}"


def _into(definition: Definition[Any], name: str, result: Any) -> Iterator[str]:
    field = definition.cls.model_fields.get(name)
    if field is None:
        known = ", ".join(definition.cls.model_fields) or "none"
        yield f"into={name!r} is no field; the fields are: {known}"
    elif result is not MISSING and not _fits(result, field.annotation):
        yield f"into={name!r} has the type {_shown(field.annotation)}, the action gives {_shown(result)}"


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)


def _fits(result: Any, wanted: Any) -> bool:
    """Whether a value of one type goes into a field of another; True where that cannot be told."""
    if wanted in (Any, MISSING) or result is Any or result == wanted:
        return True
    if is_union(wanted):
        return all(any(_fits(one, other) for other in get_args(wanted)) for one in members_of(result))
    if is_union(result):
        return all(_fits(one, wanted) for one in get_args(result))
    if isinstance(result, type) and isinstance(wanted, type) and not get_args(result) and not get_args(wanted):
        return issubclass(result, wanted) or (result is int and wanted is float)
    if result is None or wanted is None or result is type(None) or wanted is type(None):
        return result in (None, type(None)) and wanted in (None, type(None))
    mine, its = get_origin(result) or result, get_origin(wanted) or wanted
    if not (isinstance(mine, type) and isinstance(its, type)):
        return True
    inside = list(zip(get_args(result), get_args(wanted), strict=False)) if mine is its else []
    return issubclass(mine, its) and all(_fits(one, other) for one, other in inside)


def _in_bare_loop(region: Region | None) -> bool:
    while region is not None and region.kind != "try":
        if region.kind == "loop":
            return True
        # What a thread has done goes to the one that began it, or to the instance.
        region = region.place.region if region.kind == "thread" and region.place is not None else region.outer
    return False


# -- waits -------------------------------------------------------------------------------------------------------------


def _waits(definition: Definition[Any], place: Place) -> Iterator[str]:
    if not place.cases:
        yield "a Select without a case waits for ever"
    seen: set[str] = set()
    sure = False
    for case in place.cases:
        if case.kind == "on":
            if case.event is None:
                continue
            if case.event in seen:
                yield f"the case {case.name!r} can never win: the event {case.event!r} is taken by a case before it"
            seen.add(case.event)
            if case.handler is None:
                yield from _names_a_method(definition, place, case.event)
        else:
            yield from _arity(case.handler, 0, f"the handler of {case.name!r}")
            if case.kind == "when":
                if sure:
                    yield f"the case {case.name!r} can never win: a condition before it is always true"
                sure = sure or case.statement.cond is True
                if case.statement.cond is not True:
                    yield from _arity(case.statement.cond, 0, "a condition")
            else:
                given = case.statement.delay if case.kind == "after" else case.statement.instant
                if callable(given):
                    yield from _arity(given, 0, "a delay" if case.kind == "after" else "an instant")


def _names_a_method(definition: Definition[Any], place: Place, text: str) -> Iterator[str]:
    """A text is an event without input and handler: beside a method of that name it would hide what that does."""
    for cls in definition.classes(place.at):
        for event, method in declared_events(cls):
            if text in (event, method):
                said = f"self.{method}" if cls is definition.cls else f"that of the item, {cls.__name__}.{method}"
                yield f"the text {text!r} is an event without input and handler, but there is a method for it: say {said}"
                return


def _chooses(definition: Definition[Any], place: Place) -> Iterator[str]:  # noqa: ARG001
    sure = False
    for position, arm in enumerate(place.arms):
        last = position == len(place.arms) - 1
        if sure:
            yield f"{arm.path!r} can never win: a condition before it is always true"
        always = arm.cond is True and not (last and position > 0 and place.kind == "if" and arm.path.endswith("else"))
        sure = sure or (always and not last)
        if arm.cond is not True:
            yield from _arity(arm.cond, 0, "a condition")
    if not place.arms:
        yield "a Switch without a case"


# -- loops and threads -------------------------------------------------------------------------------------------------


def _body_places(definition: Definition[Any], place: Place) -> list[Place]:
    prefix = f"{place.at}/"
    return [one for one in definition.places() if one.at.startswith(prefix) and one.kind not in ("end", "again", "tried")]


def _for(definition: Definition[Any], place: Place) -> Iterator[str]:
    if place.statement.cond is not True:
        yield from _arity(place.statement.cond, 0, "a condition")
    inside = [one for one in _body_places(definition, place) if not _in_thread_of_its_own(one, place)]
    if not any(one.kind in BLOCKING or (one.kind in LEAVING and not _ends_inner_loop(one, place)) for one in inside):
        yield "the loop can never block or end: its body has no step, no wait and no Break"


def _ends_inner_loop(one: Place, loop: Place) -> bool:
    """Whether a Break is one of a loop inside *loop*."""
    region: Region | None = one.region
    while one.kind == "break" and region is not None and region.kind not in ("loop", "each"):
        region = region.outer
    return one.kind == "break" and region is not loop.inner


def _in_thread_of_its_own(one: Place, loop: Place) -> bool:
    region: Region | None = getattr(one, "region", None)
    while region is not None:
        if region is loop.inner:
            return False
        if region.kind == "thread" and region.place is not None and region.place.kind in ("foreach", "parallel"):
            region = region.place.region  # its thread waits for it
            continue
        region = region.outer
    return True


def _foreach(definition: Definition[Any], place: Place) -> Iterator[str]:
    if place.statement.items is not None:
        yield from _arity(place.statement.items, 0, "items")
    if place.statement.body is not None:
        yield from _arity(place.statement.body, 1, "the body")
    if place.statement.parallel != 1 and any(one.kind == "step" and one.plain for one in _body_places(definition, place)):
        warnings.warn(
            f"{definition.name}: {place.path!r} has plain steps, which run one at a time "
            "whatever parallel= says: give them then= or into=",
            DefinitionWarning,
            stacklevel=6,
        )


def _go(definition: Definition[Any], place: Place) -> Iterator[str]:  # noqa: ARG001
    if place.statement.id is not None:
        yield from _arity(place.statement.id, 0, "id")


def _join(definition: Definition[Any], place: Place) -> Iterator[str]:
    for name in place.statement.names:
        found = definition.gos.get(name, [])
        if not found:
            known = ", ".join(sorted(definition.gos)) or "none"
            yield f"there is no Go named {name!r}; there are: {known}"
        elif len(found) > 1:
            yield f"{name!r} is in {len(found)} places: say its path ({', '.join(found)})"


def _parallel(definition: Definition[Any], place: Place) -> Iterator[str]:  # noqa: ARG001
    if not place.branches:
        yield "a Parallel without a branch"


def _breaks(definition: Definition[Any], place: Place) -> Iterator[str]:  # noqa: ARG001
    region: Region | None = place.region
    while region is not None:
        if region.kind in ("loop", "each"):
            return
        if region.kind == "thread" and region.place is not None and region.place.kind == "foreach":
            if place.kind == "break":
                yield "a Break in an item of a parallel ForEach: the items run side by side, there is no loop to leave"
            return
        region = region.outer
    yield f"{place.kind.capitalize()} outside of a loop of its own thread"


def _returns(definition: Definition[Any], place: Place) -> Iterator[str]:  # noqa: ARG001
    if callable(place.statement.value):
        yield from _arity(place.statement.value, 0, "the value of a Return")
    region: Region | None = place.region
    while region is not None and region.kind != "thread":
        region = region.outer
    if region is not None and region.place is not None and region.place.kind == "foreach":
        yield "a Return in an item of a parallel ForEach: use Continue to end the item"


def _raises(definition: Definition[Any], place: Place) -> Iterator[str]:  # noqa: ARG001
    if callable(place.statement.error):
        yield from _arity(place.statement.error, 0, "what gives the error of a Raise")


def _try(definition: Definition[Any], place: Place) -> Iterator[str]:  # noqa: ARG001
    taken: list[type[BaseException]] = []
    for clause in place.clauses:
        statement = clause.statement
        if any(issubclass(one, tuple(taken)) for one in statement.types if taken and isinstance(one, type)) and all(
            issubclass(one, tuple(taken)) for one in statement.types
        ):
            yield f"{clause.name!r} can never win: an Except before it takes the same errors"
        taken += [one for one in statement.types if isinstance(one, type)]
        yield from _arity(statement.handler, 1, "the handler of an Except")


_CHECKS: Final[dict[str, Callable[[Definition[Any], Place], Iterable[str]]]] = {
    "step": _step,
    "select": _waits,
    "waitevent": _waits,
    "waitfor": _waits,
    "waituntil": _waits,
    "if": _chooses,
    "switch": _chooses,
    "for": _for,
    "foreach": _foreach,
    "go": _go,
    "join": _join,
    "parallel": _parallel,
    "break": _breaks,
    "continue": _breaks,
    "return": _returns,
    "raise": _raises,
    "try": _try,
}


# -- the whole ---------------------------------------------------------------------------------------------------------


def _events(definition: Definition[Any]) -> Iterator[Problem]:
    for place in definition.in_order():
        for case in place.cases:
            if case.event is not None:
                try:
                    definition.add_event(case.event, place.path, case.handler, case.statement.source)
                except TypeError as error:
                    yield _problem(place, f"the event {case.event!r}: {error}", case.statement.source, case.path)


def _class(definition: Definition[Any]) -> Iterator[Problem]:
    source = definition.source_of_definition()
    start = getattr(definition.cls, "start", None)
    if inspect.ismethod(start):
        signature = signature_of(start)
        if signature.is_async or signature.is_generator:
            text = f"start {GENERATOR}" if signature.is_generator else "start is a plain function, this one is async"
            yield Problem(path="", message=text, source=f"{start.__code__.co_filename}:{start.__code__.co_firstlineno}")
    for label in definition.labels:
        if label not in definition.cls.model_fields:
            yield Problem(path="", message=f"the label {label!r} is no field", source=source)
    own = [one for one in definition.classes() if issubclass(one, BaseModel)]
    nested = _models_in([model.__pydantic_core_schema__ for model in own])
    texts = [text for model in own for text in _hidden_state(model)]
    texts += [text for model in dict.fromkeys([*own, *nested]) for text in _lost_names(model)]
    yield from (Problem(path="", message=text, source=source) for text in texts)


def _models_in(schema: Any) -> Iterator[type[BaseModel]]:
    """The models that a core schema is made of."""
    if isinstance(schema, dict):
        cls = schema.get("cls")
        if schema.get("type") == "model" and isinstance(cls, type) and issubclass(cls, BaseModel):
            yield cls
        for name, value in schema.items():
            if name != "metadata":
                yield from _models_in(value)
    elif isinstance(schema, list | tuple):
        for value in schema:
            yield from _models_in(value)


def _hidden_state(model: type[BaseModel]) -> Iterator[str]:
    """State outside the document: what pydantic would not write (rule 5)."""
    for name in model.__private_attributes__:
        yield f"the private attribute {model.__name__}.{name} would be state outside the document: make it a field"
    for name, field in model.model_fields.items():
        if field.exclude:
            yield f"the field {model.__name__}.{name} is excluded from JSON, so it would be lost: do not exclude it"


def _lost_names(model: type[BaseModel]) -> Iterator[str]:
    """Fields that pydantic writes under a name by which it does not read them: their values would be lost in the first save."""
    for name, field in model.model_fields.items():
        written = field.serialization_alias or field.alias or name
        read = field.validation_alias or field.alias
        known = read.choices if isinstance(read, AliasChoices) else [read]
        if written != name and written not in known:
            yield f"the field {model.__name__}.{name} is written as {written!r} and not read by that name: give it one alias="
