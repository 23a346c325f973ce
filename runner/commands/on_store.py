"""Instances of a store on this machine: commands decide and save by themselves, and leave the steps to a worker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, cast

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from asyncflow import AsyncflowError, Workflow, engine
from asyncflow.activation import Activation
from asyncflow.codec import decode
from asyncflow.definition import Definition
from asyncflow.errors import HandlerFailed, InvalidInput, NotFound, Rejected, TerminalError, Unavailable
from asyncflow.handlers import Input, dump_json
from asyncflow.instance import Instance, Thread
from asyncflow.requests import outcome_of
from asyncflow.schema import definition_json, docs, start_model
from asyncflow.state import InvalidState
from asyncflow.tree import END, UNDO
from asyncflow.views import shown_control, visible_path
from runner.commands.access import JsonObject
from runner.handle import Handle
from runner.records import Loaded
from runner.runner import Runner, check_id
from runner.settings import Settings
from runner.stores.base import Key, Summary

LOOK_SECONDS: Final = 0.2
"""How often a command that waits asks whether anybody has written: not felt, and cheap by the store's promise."""


class StoreAccess:
    """The instances of a store, decided with the given workflows; lists and histories need none.

    Args:
        settings: Which store, and what else a Runner takes of them.
        workflows: The code; what asks for another workflow gets `NotFound`, which names them.
        caller: Who is said to send what is sent.

    Raises:
        DefinitionError: A workflow has problems.
        Unavailable: The store cannot be opened.
    """

    def __init__(self, settings: Settings, workflows: Sequence[type[Workflow]], *, caller: str | None = None) -> None:
        self._runner = Runner(workflows, **settings.runner_arguments())
        self._caller = caller
        self._paths = {name: _paths_of(one) for name, one in self._runner.definitions.items()}

    def close(self) -> None:
        """Finish pending saves and close the store."""
        self._runner.close()

    def _definition(self, workflow: str) -> Definition[Any]:
        definition = self._runner.definitions.get(workflow)
        if definition is None:
            known = ", ".join(self._runner.definitions) or "none"
            raise NotFound(f"there is no workflow {workflow!r} in the code that was given; there are: {known}")
        return definition

    # -- descriptions --------------------------------------------------------------------------------------------------

    def workflows(self) -> list[JsonObject]:
        """Give `{name, description}` of every workflow of the code."""
        found = [(name, docs(one.cls)["description"]) for name, one in self._runner.definitions.items()]
        return [{"name": name, "description": description} for name, description in found]

    def docs(self, workflow: str) -> JsonObject:
        """Give what `asyncflow.docs` says of it."""
        return cast("JsonObject", docs(self._definition(workflow).cls))

    def definition(self, workflow: str) -> JsonObject:
        """Give its tree."""
        return cast("JsonObject", definition_json(self._definition(workflow).cls))

    # -- instances -----------------------------------------------------------------------------------------------------

    def start(self, workflow: str, body: bytes | None, *, id: str | None, key: str | None) -> JsonObject:
        """Start an instance and give it."""
        made = _made(self._definition(workflow), body)
        try:
            handle = self._runner.start(made, id=id, idempotency_key=key, caller=self._caller)
        except InvalidState as error:
            raise InvalidInput(f"{workflow} cannot be started like this: {error}") from error
        return self.get(workflow, handle.id)

    def send(
        self,
        workflow: str,
        id: str,
        event: str,
        body: bytes | None,
        *,
        thread: str | None,
        key: str | None,
        seconds: float,
    ) -> Any:
        """Deliver an event and give the handler's value, waiting for it as long as *seconds*."""
        definition = self._definition(workflow)
        where, delivery = self._key(workflow, id), self._runner.delivery
        message = delivery.message("event", key, name=event, thread=thread, caller=self._caller, value=body)
        text = outcome_of(delivery.deliver(definition, where, message, patience=seconds))
        return None if text is None else from_json(text)

    def query(self, workflow: str, id: str, query: str) -> Any:
        """Give what a query says of the last saved state."""
        definition = self._definition(workflow)
        handle: Handle[Any] = Handle(self._runner, definition, self._key(workflow, id).id)
        try:
            value = handle.query(query)
            return from_json(dump_json(definition.queries[query].output, value))
        except AsyncflowError:
            raise
        except Exception as error:
            raise HandlerFailed(f"the query {query!r} of {workflow}/{id} failed: {error}") from error

    def get(self, workflow: str, id: str) -> JsonObject:
        """Give the instance."""
        definition = self._definition(workflow)
        act = self._activation(workflow, id)
        try:
            return instance_json(act)
        finally:
            definition.release(act.body)

    def timers(self, workflow: str, id: str) -> list[JsonObject]:
        """Give the timers that wait, the first one first."""
        definition = self._definition(workflow)
        act = self._activation(workflow, id)
        try:
            return sorted(_timers(act), key=lambda one: str(one["at"]))
        finally:
            definition.release(act.body)

    def _activation(self, workflow: str, id: str) -> Activation:
        definition, key = self._definition(workflow), self._key(workflow, id)
        stored = self._runner.delivery.get(key)
        if stored.reason is not None:
            raise Unavailable(f"{workflow}/{id} is set aside, this code cannot read it: {stored.reason}")
        try:
            return Loaded(definition, stored).activate(self._runner.store.now(), history=False)
        except InvalidState as error:
            raise Unavailable(f"this code cannot read {workflow}/{id}: {error}") from error

    def changed(self, workflow: str, id: str, since: int, seconds: float) -> JsonObject | None:
        """Wait until its `pc` is greater than *since* and give it; None if that has not come within *seconds*."""
        until = time.monotonic() + seconds
        while True:
            mark = self._runner.store.changed()
            instance = self.get(workflow, id)
            if instance["pc"] > since:
                return instance
            while self._runner.store.changed() == mark:
                left = until - time.monotonic()
                if left <= 0:
                    return None
                time.sleep(min(LOOK_SECONDS, left))

    def page(
        self, workflow: str | None, *, status: str | None, filter: str | None, page_size: int, page_token: str | None
    ) -> JsonObject:
        """Give `{instances, next_page_token}`, the newest first; without code, all that the store has."""
        known = list(self._runner.definitions)
        if workflow is not None and known:
            self._definition(workflow)
        names = [workflow] if workflow is not None else known or None
        page = self._runner.store.list(
            names, status=status, filter=filter or "", page_size=page_size, page_token=page_token
        )
        return {
            "instances": [_line(one, self._paths.get(one.workflow, {})) for one in page.items],
            "next_page_token": page.next_page_token,
        }

    def history(self, workflow: str, id: str, *, page_size: int, page_token: str | None) -> JsonObject:
        """Give `{entries, next_page_token}`, the oldest first."""
        key = self._key(workflow, id)
        self._runner.delivery.get(key)
        page = self._runner.store.history(*key, page_size=page_size, page_token=page_token)
        return {"entries": [dict(one) for one in page.entries], "next_page_token": page.next_page_token}

    def operate(
        self,
        workflow: str,
        id: str,
        verb: str,
        *,
        thread: str | None = None,
        value: bytes | None = None,
        key: str | None = None,
        if_pc: int | None = None,
    ) -> tuple[JsonObject, bool]:
        """Say an operator's word; give the instance, and whether it is applied already."""
        definition = self._definition(workflow)
        where, delivery = self._key(workflow, id), self._runner.delivery
        message = delivery.message(verb, key, thread=thread, caller=self._caller, value=value)
        answer = delivery.deliver(definition, where, message, patience=0, if_pc=if_pc)
        outcome_of(answer)
        return self.get(workflow, id), answer.status != 202

    def delete(self, workflow: str, id: str) -> None:
        """Delete an ended instance with its history."""
        self._runner.delivery.delete(self._key(workflow, id))

    def _key(self, workflow: str, id: str) -> Key:
        check_id(id)
        return Key(workflow, id)


def _made(definition: Definition[Any], body: bytes | None) -> Workflow:
    """The object that JSON text starts: made by `start`, else from the fields without default.

    Raises:
        InvalidInput: It does not fit the schema.
        Rejected, TerminalError: `start` refuses it.
        HandlerFailed: `start` raised something else.
    """
    given = definition.start_input()
    if given is None:
        model = start_model(definition.cls)
        taken = Input(none=True) if model is None else Input(model)
        text = None if model is None and body is not None and from_json(body) == {} else body
        taken.check(text)
        fields = taken.parse(text)
        values = {} if fields is None else {name: getattr(fields, name) for name in type(fields).model_fields}
        try:
            return cast("Workflow", definition.cls.model_validate(values, by_name=True))
        except ValidationError as error:
            raise InvalidInput(f"{definition.name} cannot be started like this: {error}") from error
    given.check(body)
    try:
        arguments = () if given.adapter is None else (given.parse(body),)
        return cast("Workflow", definition.cls.start(*arguments))
    except (Rejected, TerminalError):
        raise
    except Exception as error:
        raise HandlerFailed(f"{definition.name}.start failed, and nothing was started: {error}") from error


# -- how instances are shown -------------------------------------------------------------------------------------------


def instance_json(act: Activation) -> JsonObject:
    """Give the instance as programs outside see it."""
    instance = act.instance
    paths = {thread.id: visible_path(act, thread) for thread in act.in_order()}
    shown = _outside(instance, paths, shown_control(act))
    shown["state"] = from_json(instance.state)
    awaited = [] if instance.ended else engine.awaits(act)
    shown["awaits"] = [{**one.model_dump(mode="json", by_alias=True), "link": None} for one in awaited]
    order = ("workflow", "id", "status", "state", "output", "error", "threads", "awaits", "labels", "control", "pc")
    return {name: shown[name] for name in (*order, "created_at", "updated_at")}


def _outside(instance: Instance, paths: dict[str, str], control: Any) -> JsonObject:
    whole = {
        "workflow": instance.workflow,
        "id": instance.id,
        "status": instance.status,
        "output": instance.output,
        "error": None if instance.error is None else instance.error.model_dump(),
        "threads": [_thread(one, paths.get(one.id, one.position)) for one in instance.threads.values()],
        "labels": instance.labels,
        "control": control,
        "pc": instance.pc,
        "created_at": instance.created_at,
        "updated_at": instance.updated_at,
    }
    return cast("JsonObject", from_json(to_json(whole)))


def _thread(thread: Thread, path: str) -> JsonObject:
    return {
        "id": thread.id,
        "status": thread.status,
        "position": path,
        "attempt": thread.attempt,
        "retry_at": thread.retry_at,
        "error": None if thread.error is None else thread.error.model_dump(),
    }


def _timers(act: Activation) -> list[JsonObject]:
    found: list[JsonObject] = []
    for thread in act.in_order():
        place = act.place_of(thread)
        cases = {case.name: case.path for case in place.cases} if place is not None else {}
        for name, at in (thread.deadlines or {}).items():
            if at is not None and name in cases:
                found.append({"thread": thread.id, "path": cases[name], "at": at.isoformat().replace("+00:00", "Z")})
    return found


def _paths_of(definition: Definition[Any]) -> dict[str, str]:
    """The path that users know of each address."""
    paths = {place.at: place.path for place in definition.places()}
    return {**paths, **{at + UNDO: path + UNDO for at, path in paths.items()}, END: ""}


def _line(one: Summary, paths: dict[str, str]) -> JsonObject:
    """An instance as a line of a list: all but `state` and `awaits`."""
    try:
        instance = decode(one.document, b"{}")
    except AsyncflowError as error:  # a newer version: the columns are all that can be shown
        shown: JsonObject = {
            "error": {"type": type(error).__name__, "message": error.message},
            "output": None,
            "threads": [],
        }
        moments = {"created_at": one.created_at.isoformat(), "updated_at": one.updated_at.isoformat()}
        return {"workflow": one.workflow, "id": one.id, "status": one.status, **shown, "labels": one.labels, **moments}
    control = instance.control
    words = {"pause": control.pause, "cancel": control.cancel.since if control.cancel is not None else None}
    for message in instance.inbox:
        if message.kind in words:
            words[message.kind] = words[message.kind] or message.at
    held = {word: {"since": since} for word, since in words.items() if since is not None}
    line = _outside(
        instance, {t.id: paths.get(t.position, t.position) for t in instance.threads.values()}, held or None
    )
    line["status"] = one.status
    if one.reason is not None:
        line["error"] = line["error"] or {"type": "Unavailable", "message": one.reason}
    return line


__all__ = ["StoreAccess", "instance_json"]
