"""`Handle`: one instance, driven from Python. Every call is typed by the method it names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, overload

from pydantic_core import to_json

from asyncflow import Defines, Failure, Status, engine, limits
from asyncflow.activation import Activation
from asyncflow.definition import Definition
from asyncflow.errors import NotApplicable, WorkflowCancelled, WorkflowFailed
from asyncflow.handlers import read_json
from asyncflow.instance import Instance, ThreadStatus
from asyncflow.requests import NO_INPUT, encode_input, event_of, outcome_of, query_of, typed_answer
from asyncflow.views import place_paths
from runner.stores.base import Key
from runner.work.records import Loaded
from runner.work.waiting import Waiting

if TYPE_CHECKING:
    from runner.runner import Runner

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")
W_co = TypeVar("W_co", covariant=True)

Event = Callable[..., Any] | str


HINT_SECONDS: Final = 3.0
"""How long work lies that is due, until whoever waits for its end without workers of his own is told: others take less to begin."""
NOBODY_WORKS: Final = "no worker has taken what is due, and none runs in this process: begin them by `with runner:`, or elsewhere"

LOG: Final = logging.getLogger("asyncflow")


class _Hint:
    """Tells once whoever waits for ever that nobody works."""

    def __init__(self, handle: Handle[Any]) -> None:
        self._handle = handle
        self.told = False

    def look(self, instance: Instance) -> None:
        """See whether the instance has been due for long, and nobody is there to take it."""
        runner, due = self._handle._runner, instance.due_at
        if self.told or instance.ended or due is None or runner.works:
            return
        if (runner.store.now() - due).total_seconds() >= HINT_SECONDS:
            self.told = True
            LOG.warning(
                "%s/%s: %s", instance.workflow, instance.id, NOBODY_WORKS, extra={"instance": f"{instance.workflow}/{instance.id}"}
            )


class Handle(Generic[W_co]):
    """One instance, `PizzaOrder/o-1`. Every property reads the store; the first use of one that is not there raises `NotFound`."""

    id: str

    def __init__(self, runner: Runner, definition: Definition[Any], id: str) -> None:
        self.id = id
        self._runner = runner
        self._definition = definition
        self._key = Key(definition.name, id)

    def __repr__(self) -> str:
        return f"<Handle {self._key.workflow}/{self.id}>"

    # -- events and queries --------------------------------------------------------------------------------------------

    @overload
    def send(
        self,
        event: Callable[[Any], R],
        /,
        *,
        thread: str | None = None,
        caller: str | None = None,
        idempotency_key: str | None = None,
        timeout: float = 10,
    ) -> R: ...
    @overload
    def send(
        self,
        event: Callable[[Any, I], R],
        input: I,
        /,
        *,
        thread: str | None = None,
        caller: str | None = None,
        idempotency_key: str | None = None,
        timeout: float = 10,
    ) -> R: ...
    @overload
    def send(
        self,
        event: str,
        input: object = None,
        /,
        *,
        thread: str | None = None,
        caller: str | None = None,
        idempotency_key: str | None = None,
        timeout: float = 10,
    ) -> Any: ...
    def send(
        self,
        event: Any,
        input: Any = NO_INPUT,
        /,
        *,
        thread: str | None = None,
        caller: str | None = None,
        idempotency_key: str | None = None,
        timeout: float = limits.PATIENCE_SECONDS,
    ) -> Any:
        """Deliver an event and give its handler's value.

        Args:
            event: The method that handles it, or its name (then it is untyped, and checked against the schema).
            timeout: Seconds to wait for the answer of an event that has to lie until its turn comes.

        Raises:
            Pending: it is stored and will be handled; sending again with its key gets the answer.
            Rejected, NotAwaited, InvalidInput, NotFound, Ended, Full, HandlerFailed: it was refused, nothing has changed.
            AnswerDropped: it was handled long ago.
            Unavailable: the store is away. Repeat with an `idempotency_key`.
        """
        name = event_of(self._definition, event)
        value = encode_input(input)
        delivery = self._runner.delivery
        message = delivery.message("event", idempotency_key, name=name, thread=thread, caller=caller, value=value)
        return typed_answer(self._definition, name, delivery.deliver(self._definition, self._key, message, patience=timeout))

    @overload
    def query(self, query: Callable[[Any], R], /) -> R: ...
    @overload
    def query(self, query: str, /) -> Any: ...
    def query(self, query: Any, /) -> Any:
        """Give what a query says of the last saved state."""
        spec = query_of(self._definition, query)
        return getattr(self.state, spec.method)()

    # -- the end -------------------------------------------------------------------------------------------------------

    def result(self: Handle[Defines[R]], timeout: float | None = None) -> R:
        """Wait for the end, also through a pause, and give the output.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            WorkflowFailed: it failed; `failure` says how.
            WorkflowCancelled: it was cancelled or killed.
            TimeoutError: it has not ended in time.
        """
        handle = cast("Handle[Any]", self)
        bell = handle._runner.bell
        hint = _Hint(handle)

        def look() -> Instance | None:
            instance = handle._loaded().instance()
            hint.look(instance)
            return instance if instance.ended else None

        waiting = Waiting(look, lambda: bell.leave(handle._key, waiting.tell))
        bell.listen(handle._key, waiting.tell, end_only=True)
        ended = waiting.here(timeout)
        if ended is None:
            text = f"{handle._key.workflow}/{handle.id} has not ended within {timeout} s; it is {handle.status}"
            raise TimeoutError(f"{text}; {NOBODY_WORKS}" if hint.told else text)
        return cast("R", handle._outcome(ended))

    def _outcome(self, instance: Any) -> Any:
        if instance.status is Status.Failed:
            raise WorkflowFailed(instance.error)
        if instance.status is Status.Cancelled:
            raise WorkflowCancelled(f"{self._key.workflow}/{self.id} was cancelled")
        return self._typed_output(instance.output)

    def _typed_output(self, output: Any) -> Any:
        return None if output is None else read_json(self._definition.output, to_json(output))

    # -- what it is now ------------------------------------------------------------------------------------------------

    def _loaded(self) -> Loaded:
        return Loaded(self._definition, self._runner.delivery.get(self._key))

    def _activation(self) -> Activation:
        return self._loaded().activate(self._runner.store.now(), history=False)

    @property
    def state(self) -> W_co:
        """The typed workflow, a copy."""
        return cast("W_co", self._loaded().workflow())

    @property
    def output(self: Handle[Defines[R]]) -> R | None:
        """What main returned, None while it has not."""
        handle = cast("Handle[Any]", self)
        return cast("R | None", handle._typed_output(handle._loaded().instance().output))

    @property
    def status(self) -> Status:
        """What it is doing."""
        stored = self._runner.delivery.get(self._key)
        return Status.Paused if stored.reason is not None else Status(stored.record.status)

    @property
    def error(self) -> Failure | None:
        """The error of an instance that failed, or of the first parked thread."""
        instance = self._loaded().instance()
        if instance.error is not None:
            return instance.error
        return next((thread.error for thread in instance.threads.values() if thread.status is ThreadStatus.Paused), None)

    @property
    def waiting(self) -> set[str]:
        """The names of the events it would take now."""
        act = self._activation()
        return set() if act.instance.ended else {one.event for one in engine.awaits(act)}

    @property
    def threads(self) -> dict[str, str]:
        """Where each thread is, by its path."""
        return place_paths(self._activation())

    # -- verbs ---------------------------------------------------------------------------------------------------------

    def _operate(
        self,
        verb: str,
        key: str | None,
        if_pc: int | None,
        caller: str | None,
        *,
        thread: str | None = None,
        value: object = None,
    ) -> None:
        text = None if value is None else encode_input(value)
        delivery = self._runner.delivery
        message = delivery.message(verb, key, thread=thread, caller=caller, value=text)
        outcome_of(delivery.deliver(self._definition, self._key, message, patience=0, if_pc=if_pc))

    def cancel(self, *, idempotency_key: str | None = None, if_pc: int | None = None, caller: str | None = None) -> None:
        """Raise `Cancelled` in every thread; a second cancel does nothing."""
        self._operate("cancel", idempotency_key, if_pc, caller)

    def kill(self, *, idempotency_key: str | None = None, if_pc: int | None = None, caller: str | None = None) -> None:
        """End it at once, without cleanup."""
        self._operate("kill", idempotency_key, if_pc, caller)

    def pause(self, *, idempotency_key: str | None = None, if_pc: int | None = None, caller: str | None = None) -> None:
        """Stop what would begin; what runs may finish into the inbox."""
        self._operate("pause", idempotency_key, if_pc, caller)

    def resume(self, *, idempotency_key: str | None = None, if_pc: int | None = None, caller: str | None = None) -> None:
        """Lift a pause, and look again at what this code could not read before."""
        self._operate("resume", idempotency_key, if_pc, caller)

    def retry(
        self, thread: str = "main", *, idempotency_key: str | None = None, if_pc: int | None = None, caller: str | None = None
    ) -> None:
        """Try a parked thread again, or one in backoff now.

        It is for one thread; the command line and HTTP mean every parked one where they name none.

        Raises:
            NotApplicable: it is neither; the text names the threads that are.
        """
        self._operate("retry", idempotency_key, if_pc, caller, thread=thread)

    def skip(
        self,
        thread: str = "main",
        value: object = None,
        *,
        idempotency_key: str | None = None,
        if_pc: int | None = None,
        caller: str | None = None,
    ) -> None:
        """Go on behind the statement at which a thread is parked or in backoff, with *value* as its result.

        It is for one thread; the command line and HTTP mean every parked one where they name none.

        Raises:
            NotApplicable: it is neither; the text names the threads that are.
            InvalidInput: the value does not fit.
        """
        self._operate("skip", idempotency_key, if_pc, caller, thread=thread, value=value)

    def goto(
        self,
        path: str,
        thread: str = "main",
        *,
        idempotency_key: str | None = None,
        if_pc: int | None = None,
        dry_run: bool = False,
    ) -> None:
        """Move a thread: comes with a later release."""
        raise NotApplicable("goto comes with a later release")

    def edit(
        self, changes: Mapping[str, Any], *, idempotency_key: str | None = None, if_pc: int | None = None, dry_run: bool = False
    ) -> None:
        """Change the state by hand: comes with a later release."""
        raise NotApplicable("edit comes with a later release")

    def delete(self) -> None:
        """Delete an ended instance with its history.

        Raises:
            NotApplicable: it has not ended.
        """
        self._runner.delivery.delete(self._key)

    def history(self) -> Iterator[Mapping[str, Any]]:
        """Give every transition, the oldest first."""
        self._runner.delivery.get(self._key)
        token: str | None = None
        while True:
            page = self._runner.store.history(self._key.workflow, self.id, page_token=token)
            yield from page.entries
            token = page.next_page_token
            if token is None:
                return
