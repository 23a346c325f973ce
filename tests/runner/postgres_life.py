"""Another process with workers on a Postgres store, for tests that kill it or let several share the work.

    python -m tests.runner.postgres_life URL MARKS [LEASE]

What its actions do is a line in the file MARKS; `ready` on standard output says that it works. It ends with its input.
"""

import os
import sys
import time
from datetime import timedelta
from pathlib import Path

from asyncflow import ForEach, Return, S, Section, Step, Workflow
from runner import Runner


def mark(*words: object) -> None:
    """Add a line to the file of marks, whole, whatever other processes write there."""
    with Path(sys.argv[2]).open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


class Stuck(Workflow):
    """Its step hangs in the first process that runs it, and ends in the next."""

    attempt: int = 0

    def work(self) -> None:
        mark("began", self.context.id, self.context.attempt, os.getpid())
        while self.context.attempt == 1:
            time.sleep(0.05)
        self.attempt = self.context.attempt

    def definition(self) -> Section[int]:
        return S(Step(self.work), Return(lambda: self.attempt))


class Parcel(Workflow):
    """Some steps in a row and some side by side, each marked."""

    done: dict[str, int] = {"a": 0, "b": 0, "c": 0}

    def pack(self) -> None:
        mark("step", self.context.id, self.context.step, os.getpid())

    async def send(self, name: str) -> str:
        mark("step", self.context.id, name, os.getpid())
        return name

    def note(self, name: str) -> None:
        self.done[name] += 1

    def each(self, name: str) -> Section:
        return S(Step("send", self.send, name, then=self.note))

    def definition(self) -> Section[int]:
        return S(
            Step("first", self.pack),
            Step("second", self.pack),
            ForEach("all", lambda: ["a", "b", "c"], self.each, parallel=3),
            Return(lambda: sum(self.done.values())),
        )


def main() -> None:
    """Work until the input ends."""
    lease = timedelta(seconds=float(sys.argv[3])) if len(sys.argv) > 3 else timedelta(seconds=330)
    with Runner([Stuck, Parcel], store=sys.argv[1], lease=lease):
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
