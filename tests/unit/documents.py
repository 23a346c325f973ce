"""One stored document and the writes made to it by the engine's own functions, without a store and without a runner."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

from asyncflow import Workflow, engine
from asyncflow.activation import Activation, Answer
from asyncflow.codec import decode
from asyncflow.definition import Definition
from asyncflow.instance import Instance, Message, Thread
from asyncflow.leases import Run, finished, take
from asyncflow.write import decide, seal

START: Final = datetime(2024, 5, 1, tzinfo=UTC)


class Stored:
    """An instance as a store holds it. `now` is moved by the test; `runs` are those taken and not ended."""

    def __init__(self, workflow: Workflow, *, room: int = 0) -> None:
        self.definition: Definition[Any] = Definition.of(type(workflow))
        self.now = START
        self.text = b""
        self.state = self.definition.codec.dump(workflow)
        self.runs: list[Run] = []
        self.records: list[dict[str, Any]] = []
        self.numbers = count(1)
        self.write(room=room, load=self._fresh)

    def _fresh(self) -> Activation:
        instance = engine.start(self.definition, self.state, id="i", uid="u", now=self.now)
        return Activation(self.definition, self.definition.body(self.state), instance, self.now)

    @property
    def instance(self) -> Instance:
        return decode(self.text, self.state)

    @property
    def main(self) -> Thread:
        return self.instance.threads["main"]

    def load(self, now: datetime | None = None) -> Activation:
        size = len(self.text) + len(self.state)
        body = self.definition.body(self.state)
        return Activation(self.definition, body, self.instance, now or self.now, size=size)

    def take(self, act: Activation, room: int) -> list[Run]:
        return take(act, lambda: f"token-{next(self.numbers)}", room=room)

    def write(self, *messages: Message, room: int = 0, load: Callable[[], Activation] | None = None) -> dict[str, Answer]:
        """Post, run to rest, take as many steps as there is room for, and save; gives the answers."""
        act, runs = decide(load or self.load, messages, lambda act: self.take(act, room))
        self.runs += self.keep(act, runs)
        return act.answers

    def keep(self, act: Activation, runs: Sequence[Run] = ()) -> Sequence[Run]:
        if not act.changed:
            return []
        self.text, self.state = act.document, act.instance.state
        self.records += act.records
        return runs

    def operate(self, work: Callable[[Activation], object]) -> Any:
        """Do something else than posting to a loaded document, run it to rest and save it."""
        act = self.load()
        given = work(act)
        engine.advance(act)
        if seal(act):
            self.keep(act)
        return given

    def wake(self, at: datetime, *, room: int = 1_000) -> Activation:
        """Wake the document at an instant; nothing is kept."""
        act, _ = decide(lambda: self.load(at), (), lambda act: self.take(act, room))
        return act

    # -- messages ------------------------------------------------------------------------------------------------------

    def message(self, kind: str, *, after: timedelta = timedelta(0), key: str | None = None, **fields: Any) -> Message:
        name = key or f"message-{next(self.numbers)}"
        return Message(name, kind, self.now + after, keyed=key is not None, **fields)

    def send(self, name: str, value: bytes | None = None, **fields: Any) -> Answer | None:
        """Deliver an event; None: it lies."""
        message = self.message("event", name=name, value=value, **fields)
        return self.write(message).get(message.id)

    def say(self, verb: str, thread: str | None = None, value: bytes | None = None) -> Answer | None:
        message = self.message(verb, thread=thread, value=value)
        return self.write(message).get(message.id)

    def finish(self, run: Run, *, room: int = 0) -> None:
        """Run an action that was taken, and lay its result down."""
        if run in self.runs:
            self.runs.remove(run)
        self.write(finished(run, run.call(), at=self.now), room=room)
