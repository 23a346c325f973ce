"""What callers hand in and get back, the same for the test kit and a runner: names, JSON, hashes, answers."""

from __future__ import annotations

from typing import Any, Final

from pydantic_core import from_json, to_json

from asyncflow.activation import Answer
from asyncflow.definition import Definition
from asyncflow.errors import AnswerDropped, InvalidInput, NotFound
from asyncflow.handlers import QuerySpec, event_name, read_json

NO_INPUT: Final[Any] = object()
"""Stands for an input that nobody gave: a None that was given is a null."""


def event_of(definition: Definition[Any], event: Any) -> str:
    """The name of an event, given by name or by the method that handles it.

    Raises:
        NotFound: a method that no `On` of the workflow names.
    """
    if isinstance(event, str):
        return event
    function = getattr(event, "__func__", event)
    for place in definition.places():
        for case in place.cases:
            if case.event is not None and getattr(case.handler, "__func__", case.handler) is function:
                return case.event
    name = event_name(None, event)
    if name is not None and name in definition.events:
        return name
    raise definition.no_event(str(getattr(event, "__qualname__", event)), name)


def query_of(definition: Definition[Any], query: Any) -> QuerySpec:
    """The query that is asked for by name or by its method.

    Raises:
        NotFound: the workflow has none of that name.
    """
    name = query if isinstance(query, str) else query.__name__
    spec = definition.queries.get(name)
    if spec is None:
        raise NotFound(f"{definition.name} has no query {name!r}; it has: {', '.join(sorted(definition.queries)) or 'none'}")
    return spec


def encode_input(value: Any) -> bytes | None:
    """An input as JSON text; None where there is none.

    Raises:
        InvalidInput: it is nothing that can be JSON.
    """
    if value is NO_INPUT:
        return None
    try:
        return to_json(value, by_alias=True, round_trip=True, bytes_mode="base64", inf_nan_mode="constants")
    except ValueError as error:
        raise InvalidInput(f"the input cannot be JSON: {error}") from error


def request_hash(kind: str, name: str, thread: str | None, value: bytes | None) -> str:
    """What a key was used for: start or event, thread and body (rule 27)."""
    import hashlib  # noqa: PLC0415 (only who delivers needs it)

    digest = hashlib.sha256()
    for part in (kind, name, thread or "", _canonical(value)):
        # Lengths between the parts, so that no two requests run together into one text.
        digest.update(f"{len(part)}:".encode() + (part if isinstance(part, bytes) else part.encode()))
    return digest.hexdigest()[:32]


def _canonical(value: bytes | None) -> bytes:
    """The same body, however its keys were ordered or spaced."""
    return b"null" if value is None else to_json(_sorted(from_json(value)))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_sorted(one) for one in value]
    return value


def outcome_of(answer: Answer) -> bytes | None:
    """The JSON text of an answer's value.

    Raises:
        AsyncflowError: the refusal it is.
        AnswerDropped: it was handled long ago, and the answer is no longer kept.
    """
    if answer.error is not None:
        raise answer.error
    if answer.dropped:
        raise AnswerDropped("the event was handled, but its answer is no longer kept")
    return answer.value


def typed_answer(definition: Definition[Any], name: str, answer: Answer) -> Any:
    """An event's answer as the type its handler returns.

    Raises:
        AsyncflowError: the refusal it is.
    """
    text = outcome_of(answer)
    spec = definition.events.get(name)
    if text is None or spec is None or spec.output is None:
        return None
    return read_json(spec.output, text)
