"""A start from outside: JSON text in, an instance out. Used by HTTP and the command line alike."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast
from weakref import WeakKeyDictionary

from pydantic import ValidationError
from pydantic_core import from_json

from asyncflow import Workflow
from asyncflow.definition import Definition
from asyncflow.errors import Full, HandlerFailed, InvalidInput, InvalidState, Rejected, TerminalError
from asyncflow.handlers import Input, invalid_input
from asyncflow.requests import request_hash
from asyncflow.schema import start_model
from runner.ids import id_for
from runner.stores.base import Stored
from runner.work.deliver import Delivery

Make = Callable[[bytes | None], Workflow]

_MAKERS: Final[WeakKeyDictionary[Definition[Any], Make]] = WeakKeyDictionary()


class Started(NamedTuple):
    """What was started: its id, and the instance as it was saved; None where it has to be read, as for a repeated start."""

    id: str
    stored: Stored | None = None


def start_from(
    delivery: Delivery,
    definition: Definition[Any],
    body: bytes | None,
    *,
    id: str | None = None,
    key: str | None = None,
    caller: str | None = None,
) -> Started:
    """Start an instance from JSON text.

    Args:
        delivery: Of the Runner that is to have it.
        definition: Of which workflow.
        body: The fields without default, or the input of `start`; None or `null` where it takes nothing.
        id: Its id; default: made from the key's hash, or random.
        key: The sender's idempotency key: the same start with the same key gives the first instance.
        caller: Who starts it.

    Raises:
        InvalidInput: the body does not fit the schema.
        Rejected, TerminalError: `start` refuses it.
        HandlerFailed: `start` raised something else, or what it made cannot be stored.
        AlreadyExists: the id is taken, by another start.
        KeyReused: the key has started something else.
        Malformed: the id cannot be one.
        Unavailable: the store is away.
    """
    hashed = None if key is None else (key, request_hash("start", definition.name, None, body))
    own = id_for(id, key)
    # A repeat is no start: what `start` would say of the body now is not asked.
    if hashed is not None and delivery.same_start(definition, own, hashed) is not None:
        return Started(own)
    made = _maker(definition)(body)
    try:
        state = definition.codec.dump(made)
    except InvalidState as error:
        raise HandlerFailed(f"{definition.name} made a state that cannot be stored: nothing was started") from error
    value = None if body is None else from_json(body)
    stored = delivery.start(definition, state, id=own, uid=secrets.token_hex(16), key=hashed, input=value, caller=caller)
    return Started(own, stored)


def _maker(definition: Definition[Any]) -> Make:
    """What makes the object; kept, since its schema is dear to build."""
    made = _MAKERS.get(definition)
    if made is None:
        given = definition.start_input()
        made = _MAKERS[definition] = _from_fields(definition) if given is None else _by_start(definition, given)
    return made


def _from_fields(definition: Definition[Any]) -> Make:
    cls = definition.cls
    model = start_model(cls)
    taken = Input(none=True) if model is None else Input(model)

    def make(body: bytes | None) -> Workflow:
        if model is None:
            taken.check(None if body is not None and from_json(body) == {} else body)
            body = b"{}"
        else:
            taken.check(body)
        assert body is not None
        try:
            made: Workflow = cls.model_validate_json(body)
        except ValidationError as error:  # a validator of the class that its schema does not know
            raise invalid_input(
                [
                    {"path": "/".join(str(part) for part in one["loc"]), "message": one["msg"]}
                    for one in error.errors(include_url=False, include_context=False, include_input=False)
                ]
            ) from error
        return made

    return make


def _by_start(definition: Definition[Any], given: Input) -> Make:
    start = definition.cls.start

    def make(body: bytes | None) -> Workflow:
        given.check(body)
        arguments = given.arguments(body)
        try:
            made = start(*arguments)
            if not isinstance(made, definition.cls):
                raise TypeError(f"expected start to give {definition.cls.__name__}, found {type(made).__name__}")
        except (Rejected, TerminalError, InvalidInput, Full):
            raise
        except Exception as error:
            raise HandlerFailed(f"{definition.name}.start failed: nothing was started") from error
        return cast("Workflow", made)

    return make
