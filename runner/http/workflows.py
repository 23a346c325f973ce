"""The routes of workflows and their instances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, g, request, url_for
from pydantic_core import from_json, to_json
from werkzeug.wrappers import Response

from asyncflow import Status
from asyncflow.activation import Answer
from asyncflow.definition import Definition
from asyncflow.errors import AnswerDropped, HandlerFailed, Malformed, NotFound, Rejected, TerminalError, Unavailable
from asyncflow.handlers import dump_json
from asyncflow.instance import Message
from asyncflow.requests import outcome_of, query_of
from asyncflow.schema import definition_json, docs
from runner.http import edge
from runner.http.instances import whole, whole_of
from runner.http.parking import answer_when
from runner.http.replies import reply, reply_nothing
from runner.ids import check_id
from runner.questions import check_filter
from runner.showing import line_of, unfit_of
from runner.starting import start_from
from runner.stores.base import Key, Stored
from runner.work.records import Loaded
from runner.work.waiting import Waiting

if TYPE_CHECKING:
    from runner.runner import Runner

ALL: Final = "-"
"""Stands for all workflows in the path of a list."""
VERBS: Final[dict[str, tuple[str, ...]]] = {
    "cancel": (),
    "kill": (),
    "pause": (),
    "resume": (),
    "retry": ("thread",),
    "skip": ("thread", "value"),
}
"""The operators' words, each with what its body may say."""


class Workflows:
    """The views, over one Runner."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._docs: dict[str, bytes] = {}
        self._trees: dict[str, bytes] = {}

    def add_to(self, blueprint: Blueprint) -> None:
        """Add all routes."""
        instance = "/workflows/<workflow>/<id>"
        blueprint.get("/workflows")(self.workflows)
        blueprint.get("/workflows/<workflow>")(self.instances)
        blueprint.post("/workflows/<workflow>")(self.start)
        blueprint.get("/workflows/<workflow>/docs")(self.docs)
        blueprint.get("/workflows/<workflow>/definition")(self.definition)
        blueprint.get(instance)(self.instance)
        blueprint.delete(instance)(self.delete)
        blueprint.get(f"{instance}/history")(self.history)
        blueprint.get(f"{instance}/queries/<query>")(self.query)
        blueprint.post(f"{instance}/events/<event>")(self.event)
        blueprint.post(f"{instance}:<verb>")(self.operate)

    # -- what there is -------------------------------------------------------------------------------------------------

    def workflows(self) -> Response:
        """Give name and description of every workflow."""
        edge.check_query(request)
        found = [from_json(self._docs_of(one)) for one in self._runner.definitions.values()]
        return reply({"workflows": [{"name": one["workflow"], "description": one["description"]} for one in found]})

    def docs(self, workflow: str) -> Response:
        """Give the JSON Schemas of a workflow."""
        edge.check_query(request)
        return reply(self._docs_of(self._definition(workflow)))

    def definition(self, workflow: str) -> Response:
        """Give the tree of a workflow."""
        edge.check_query(request)
        definition = self._definition(workflow)
        if workflow not in self._trees:
            self._trees[workflow] = to_json(definition_json(definition.cls))
        return reply(self._trees[workflow])

    def _docs_of(self, definition: Definition[Any]) -> bytes:
        if definition.name not in self._docs:
            self._docs[definition.name] = to_json(docs(definition.cls))
        return self._docs[definition.name]

    def instances(self, workflow: str) -> Response:
        """Give one page of the instances, newest first."""
        edge.check_query(request, "status", "filter", "page_size", "page_token")
        known = self._runner.definitions
        names = list(known) if workflow == ALL else [self._definition(workflow).name]
        status = request.args.get("status") or None
        if status is not None and status not in Status.__members__:
            raise Malformed(f"expected a status of {', '.join(Status)}, found {status[:100]!a}")
        size, token = edge.page_of(request)
        asked = request.args.get("filter", "")
        check_filter(asked, [known[name] for name in names])
        page = self._runner.store.list(names, status=status, filter=asked, page_size=size, page_token=token)
        unfit = unfit_of(self._runner.store, names)
        lines = [line_of(known[one.workflow], one, unfit) for one in page.items]
        return reply({"instances": lines, "next_page_token": page.next_page_token})

    # -- one instance --------------------------------------------------------------------------------------------------

    def start(self, workflow: str) -> Response:
        """Start an instance."""
        definition = self._definition(workflow)
        edge.check_query(request, "id", "dry_run")
        edge.refuse_rehearsal(request)
        body, key = edge.read_body(request), edge.idempotency_key(request)
        delivery, wanted = self._runner.delivery, request.args.get("id")
        started = start_from(delivery, definition, body, id=wanted, key=key, caller=g.asyncflow_caller)
        path = _path(workflow, started.id)
        stored = started.stored or delivery.get(Key(workflow, started.id))
        return self._shown(definition, stored, path, status=201, headers={"Location": path})

    def instance(self, workflow: str, id: str) -> Response:
        """Give an instance, or wait until it has changed."""
        definition, key = self._find(workflow, id)
        edge.check_query(request, "wait", "since")
        path = _path(workflow, id)
        poll = edge.long_poll(request)
        if poll is not None:
            return self._when_newer(definition, key, poll, path)
        response = self._shown(definition, self._runner.delivery.get(key), path)
        tag = response.headers.get("ETag", "").strip('"')
        return _not_modified(int(tag)) if tag and edge.has_already(request, int(tag)) else response

    def _when_newer(self, definition: Definition[Any], key: Key, poll: edge.LongPoll, path: str) -> Response:
        bell, delivery, last = self._runner.bell, self._runner.delivery, _Last()

        def look() -> Stored | None:
            stored = delivery.get(key)
            return stored if last.is_news(definition, stored, poll.since) else None

        def render(found: Stored | None) -> Response:
            return _not_modified(last.pc) if found is None else self._shown(definition, found, path)

        waiting = Waiting(look, lambda: bell.leave(key, waiting.tell))
        bell.listen(key, waiting.tell)
        return answer_when(request, waiting, poll.seconds, render, instance=path)

    def delete(self, workflow: str, id: str) -> Response:
        """Delete an ended instance with its history."""
        _, key = self._find(workflow, id)
        edge.check_query(request)
        self._runner.delivery.delete(key, if_pc=edge.expected_pc(request))
        return reply_nothing(204)

    def history(self, workflow: str, id: str) -> Response:
        """Give one page of what has happened, oldest first."""
        _, key = self._find(workflow, id)
        edge.check_query(request, "page_size", "page_token")
        self._runner.delivery.get(key)
        size, token = edge.page_of(request)
        page = self._runner.store.history(workflow, id, page_size=size, page_token=token)
        return reply({"entries": page.entries, "next_page_token": page.next_page_token})

    def query(self, workflow: str, id: str, query: str) -> Response:
        """Give what a query says of the last saved state."""
        definition, key = self._find(workflow, id)
        edge.check_query(request)
        loaded = Loaded(definition, self._runner.delivery.get(key))
        spec = query_of(definition, query)
        state = loaded.workflow()
        try:
            return reply(dump_json(spec.output, getattr(state, spec.method)()))
        except (Rejected, TerminalError):
            raise
        except Exception as error:
            raise HandlerFailed(f"the query {query!r} of {workflow}/{id} failed") from error

    # -- messages ------------------------------------------------------------------------------------------------------

    def event(self, workflow: str, id: str, event: str) -> Response:
        """Deliver an event, and give the handler's value."""
        definition, key = self._find(workflow, id)
        edge.check_query(request, "thread", "dry_run")
        edge.refuse_rehearsal(request)
        patience, body = edge.patience(request), edge.read_body(request)
        message = self._message("event", name=event, thread=edge.thread_of(request.args.get("thread")), value=body)
        laid = self._runner.delivery.lay(definition, key, message, if_pc=edge.expected_pc(request))
        if isinstance(laid, Answer):
            return _answered(laid)

        def render(answer: Answer | None) -> Response:
            return reply({"idempotency_key": message.id}, 202) if answer is None else _answered(answer)

        return answer_when(request, laid, patience, render, instance=_path(workflow, id))

    def operate(self, workflow: str, id: str, verb: str) -> Response:
        """Say an operator's word; give the instance as it is then."""
        definition, key = self._find(workflow, id)
        if verb not in VERBS:
            raise NotFound(f"there is no verb {verb!r}; there are: {', '.join(VERBS)}")
        edge.check_query(request, "dry_run")
        thread, value = _arguments(edge.read_object(request, *VERBS[verb]))
        message = self._message(verb, thread=thread, value=value)
        if_pc, path = edge.expected_pc(request), _path(workflow, id)
        delivery = self._runner.delivery
        if edge.is_rehearsal(request):
            answer, act = delivery.rehearse(definition, key, message, if_pc=if_pc)
            try:
                outcome_of(answer)
                return reply(whole_of(act, path), _status_of(answer))
            finally:
                definition.release(act.body)
        answer = delivery.deliver(definition, key, message, patience=0, if_pc=if_pc)
        outcome_of(answer)
        return self._shown(definition, delivery.get(key), path, status=_status_of(answer))

    def _message(self, kind: str, *, name: str = "", thread: str | None = None, value: bytes | None = None) -> Message:
        key, caller = edge.idempotency_key(request), g.asyncflow_caller
        return self._runner.delivery.message(kind, key, name=name, thread=thread, caller=caller, value=value)

    # -- finding and showing -------------------------------------------------------------------------------------------

    def _definition(self, workflow: str) -> Definition[Any]:
        definition = self._runner.definitions.get(workflow)
        if definition is None:
            known = ", ".join(self._runner.definitions) or "none"
            raise NotFound(f"there is no workflow {workflow[:200]!r}; there are: {known}")
        return definition

    def _find(self, workflow: str, id: str) -> tuple[Definition[Any], Key]:
        definition = self._definition(workflow)
        check_id(id)
        return definition, Key(workflow, id)

    def _shown(
        self,
        definition: Definition[Any],
        stored: Stored,
        path: str,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> Response:
        text, pc = whole(definition, stored, now=self._runner.store.now(), path=path)
        tag = {} if pc is None else {"ETag": f'"{pc}"'}
        # Caches may keep it, and have to ask whether it is still true.
        return reply(text, status, {"Cache-Control": "no-cache", **tag, **(headers or {})})


class _Last:
    """What a long-poll has seen last: a document that was not saved since has nothing new."""

    def __init__(self) -> None:
        self.pc = 0
        self._revision: object = None

    def is_news(self, definition: Definition[Any], stored: Stored, since: int) -> bool:
        before, self._revision = self._revision, stored.revision
        if before == stored.revision:
            return False
        try:
            self.pc = Loaded(definition, stored).instance().pc
        except Unavailable:
            return before is not None  # what this code cannot read has no counter, but it was written
        return self.pc > since


def _path(workflow: str, id: str) -> str:
    return url_for(".instance", workflow=workflow, id=id)


def _not_modified(pc: int) -> Response:
    return reply_nothing(304, {"ETag": f'"{pc}"', "Cache-Control": "no-cache"})


def _status_of(answer: Answer) -> int:
    return 202 if answer.status == 202 else 200


def _answered(answer: Answer) -> Response:
    """Give the handler's value bare; raises the refusal."""
    if answer.error is not None:
        raise answer.error
    if answer.dropped and answer.status >= 400:
        raise AnswerDropped(f"the event was refused with {answer.status}; why is no longer kept")
    return reply(answer.value or b"null", headers={"Asyncflow-Answer": "dropped"} if answer.dropped else None)


def _arguments(said: dict[str, Any]) -> tuple[str | None, bytes | None]:
    """Thread and value of an operator's word."""
    value = said.get("value")
    return edge.thread_of(said.get("thread")), None if value is None else to_json(value)


__all__ = ["VERBS", "Workflows"]
