"""Another process: a Runner with workers on a file, driven by lines on its standard input.

    python -m tests.runner.elsewhere sqlite:///FILE

It says what its actions do, a line each; the commands are `open` (its gate), `cpu` (says how many seconds of processor
time it has used), and the end of the input, which ends it.
"""

import sys
import threading
import time
from datetime import timedelta

from asyncflow import For, Parallel, Return, S, Section, Step, WaitEvent, WaitFor, Workflow, event
from runner import Runner
from tests.runner.gates import Gate

GATE = Gate()
_saying = threading.Lock()


def say(*words: object) -> None:
    """Say one line."""
    with _saying:
        print(*words, flush=True)


class Stamp(Workflow):
    """Says when its step begins, by a clock that is the same in all processes."""

    def stamp(self) -> None:
        say("began", self.context.id, time.monotonic())

    def definition(self) -> Section[None]:
        return S(Step(self.stamp))


class Later(Workflow):
    """Says when its step begins, a moment after its start."""

    def stamp(self) -> None:
        say("began", self.context.id, time.monotonic())

    def definition(self) -> Section[None]:
        return S(WaitFor("a moment", timedelta(milliseconds=300)), Step(self.stamp))


class Desk(Workflow):
    """A plain step at the gate, then notes."""

    notes: list[str] = []

    async def work(self) -> None:
        say("began", self.context.id, time.monotonic())
        await GATE.hold_async()

    @event
    def note(self, text: str) -> int:
        self.notes.append(text)
        return len(self.notes)

    def definition(self) -> Section[list[str]]:
        return S(
            Step(self.work),
            For("open", lambda: len(self.notes) < 2, WaitEvent(self.note)),
            Return(lambda: self.notes),
        )


class Beside(Workflow):
    """A long step at the gate, and beside it one that an event lets begin."""

    @event
    def go(self) -> None: ...

    async def long(self) -> int:
        say("began", "long", time.monotonic())
        await GATE.hold_async()
        return 1

    def short(self) -> int:
        say("began", "short", time.monotonic())
        return 1

    def drop(self, value: int) -> None: ...

    def definition(self) -> Section[int]:
        return S(
            Parallel(
                "both",
                S(Step(self.long, then=self.drop)),
                S(WaitEvent(self.go), Step(self.short, then=self.drop)),
            ),
            Return(1),
        )


def main(url: str) -> None:
    """Work until the input ends."""
    with Runner([Stamp, Later, Desk, Beside], store=url):
        say("ready")
        for line in sys.stdin:
            if line.strip() == "open":
                GATE.open()
            elif line.strip() == "cpu":
                say("cpu", time.process_time())
        GATE.open()


if __name__ == "__main__":
    main(sys.argv[1])
