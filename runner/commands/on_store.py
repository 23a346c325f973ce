"""Instances of a store on this machine: commands decide and save by themselves, and leave the steps to a worker."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from pydantic_core import from_json, to_json

from asyncflow import AsyncflowError, Workflow
from asyncflow.activation import Activation
from asyncflow.definition import Definition
from asyncflow.errors import HandlerFailed, InvalidState, NotFound, Unavailable
from asyncflow.handlers import dump_json
from asyncflow.requests import outcome_of
from asyncflow.schema import definition_json, docs
from asyncflow.views import shown, shown_awaits
from runner.commands.access import JsonObject
from runner.handle import Handle
from runner.ids import check_id
from runner.questions import check_filter
from runner.runner import Runner
from runner.settings import Settings
from runner.showing import line_of, set_aside, unfit_of
from runner.starting import start_from
from runner.stores.base import Key
from runner.work.records import Loaded

LOOK_SECONDS: Final = 0.2
"""How often a command that waits asks whether anybody has written: not felt, and cheap by the store's promise."""


class Code:
    """What there is to know of workflows without any instance.

    Args:
        definitions: By name.
    """

    def __init__(self, definitions: Mapping[str, Definition[Any]]) -> None:
        self._definitions = definitions

    def close(self) -> None:
        """Nothing is open."""

    def workflows(self) -> list[JsonObject]:
        """Give `{name, description}` of every workflow of the code."""
        found = [(name, docs(one.cls)["description"]) for name, one in self._definitions.items()]
        return [{"name": name, "description": description} for name, description in found]

    def docs(self, workflow: str) -> JsonObject:
        """Give what `asyncflow.docs` says of it."""
        return cast("JsonObject", docs(self._definition(workflow).cls))

    def definition(self, workflow: str) -> JsonObject:
        """Give its tree."""
        return cast("JsonObject", definition_json(self._definition(workflow).cls))

    def _definition(self, workflow: str) -> Definition[Any]:
        definition = self._definitions.get(workflow)
        if definition is None:
            raise NotFound(f"there is no workflow {workflow!r} in the code that was given; there are: {self._known()}")
        return definition

    def _known(self) -> str:
        return ", ".join(self._definitions) or "none"


class StoreAccess(Code):
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
        super().__init__(self._runner.definitions)
        self._caller = caller

    def close(self) -> None:
        """Finish pending saves and close the store."""
        self._runner.close()

    # -- instances -----------------------------------------------------------------------------------------------------

    def start(self, workflow: str, body: bytes | None, *, id: str | None, key: str | None) -> JsonObject:
        """Start an instance and give it."""
        definition = self._definition(workflow)
        made = start_from(self._runner.delivery, definition, body, id=id, key=key, caller=self._caller)
        return self.get(workflow, made.id)

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
            raise HandlerFailed(f"the query {query!r} of {workflow}/{id} failed") from error

    def get(self, workflow: str, id: str) -> JsonObject:
        """Give the instance; of one that this code cannot read, what its columns say (rule 23)."""
        if workflow not in self._definitions:
            return self._foreign(workflow, id)
        definition = self._definition(workflow)
        stored = self._runner.delivery.get(self._key(workflow, id))
        try:
            act = Loaded(definition, stored).activate(self._runner.store.now(), history=False)
        except (Unavailable, InvalidState) as error:
            line = _as_json(set_aside(definition, stored.record, stored.reason or str(error)))
            return _whole(line, from_json(stored.record.state), [])
        try:
            line = _as_json(shown(definition, act.instance))
            return _whole(line, from_json(act.instance.state), [{**one, "link": None} for one in shown_awaits(act)])
        finally:
            definition.release(act.body)

    def _foreign(self, workflow: str, id: str) -> JsonObject:
        """Give an instance whose workflow is not in the code: what lies in the store is shown as it is."""
        stored = self._runner.store.get(*self._key(workflow, id))
        if stored is None:
            self._definition(workflow)
            raise NotFound(f"there is no {workflow}/{id}")
        reason = f"there is no workflow {workflow!r} in the code that was given; there are: {self._known()}"
        return _whole(_as_json(set_aside(None, stored.record, reason)), from_json(stored.record.state), [])

    def timers(self, workflow: str, id: str) -> list[JsonObject]:
        """Give the timers that wait, the first one first."""
        definition = self._definitions.get(workflow)
        if definition is None:
            return []
        stored = self._runner.delivery.get(self._key(workflow, id))
        try:
            act = Loaded(definition, stored).activate(self._runner.store.now(), history=False)
        except (Unavailable, InvalidState):
            return []
        try:
            return sorted(_timers(act), key=lambda one: str(one["at"]))
        finally:
            definition.release(act.body)

    def changed(self, workflow: str, id: str, since: int, seconds: float) -> JsonObject | None:
        """Wait until its `pc` is greater than *since* and give it; None if that has not come within *seconds*."""
        until = time.monotonic() + seconds
        while True:
            mark = self._runner.store.changed()
            instance = self.get(workflow, id)
            if instance["pc"] is None or instance["pc"] > since:
                return instance
            while self._runner.store.changed() == mark:
                left = until - time.monotonic()
                if left <= 0:
                    return None
                time.sleep(min(LOOK_SECONDS, left))

    def page(
        self,
        workflow: str | None,
        *,
        status: str | None,
        filter: str | None,
        page_size: int,
        page_token: str | None,
        foreign: bool = False,
    ) -> JsonObject:
        """Give `{instances, next_page_token}`, the newest first; without code, or with *foreign*, all that the store has."""
        known, store = list(self._definitions), self._runner.store
        names = [workflow] if workflow is not None else (None if foreign else known or None)
        check_filter(filter, [one for one in self._definitions.values() if workflow in (None, one.name)])
        page = store.list(names, status=status, filter=filter or "", page_size=page_size, page_token=page_token)
        if workflow is not None and known and not (page.items and foreign):
            self._definition(workflow)
        unfit = unfit_of(store, {one.workflow for one in page.items})
        return {
            "instances": [_as_json(line_of(self._definitions.get(one.workflow), one, unfit)) for one in page.items],
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


# -- how instances are shown -------------------------------------------------------------------------------------------


def _as_json(view: JsonObject) -> JsonObject:
    return cast("JsonObject", from_json(to_json(view)))


def _whole(line: JsonObject, state: Any, awaits: list[JsonObject]) -> JsonObject:
    head = ("workflow", "id", "status")
    rest = {name: value for name, value in line.items() if name not in head}
    return {**{name: line[name] for name in head}, "state": state, **rest, "awaits": awaits}


def _timers(act: Activation) -> Iterator[JsonObject]:
    for thread in act.in_order():
        place = act.place_of(thread)
        cases = {case.name: case.path for case in place.cases} if place is not None else {}
        for name, at in (thread.deadlines or {}).items():
            if at is not None and name in cases:
                yield {"thread": thread.id, "path": cases[name], "at": at.isoformat().replace("+00:00", "Z")}
