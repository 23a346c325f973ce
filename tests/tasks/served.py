"""A process that serves an app for a queue, and may die at a named point: around each kind of save, action and wake-up.

python -m tests.tasks.served STORE PORT SCHEDULER [POINT [HOST]]
"""

import ctypes
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from asyncflow import Return, S, Section, Step, WaitFor, Workflow
from runner import Runner
from runner.http.server import serve
from runner.work import sweeper
from tests.crash.life import Reaper

POINTS: Final = (
    "before take",
    "after take",
    "begin action",
    "end action",
    "before finish",
    "after finish",
    "before wake",
    "after wake",
)
KEY: Final = "k" * 32
NAP: Final = timedelta(milliseconds=100)
_PR_SET_PDEATHSIG: Final = 1


class Trip(Workflow):
    """Three steps, each noted in a ledger outside before it ends, with a nap in between."""

    ledger: str
    legs: list[str] = []

    def leg(self, name: str) -> None:
        REAPER.pass_by("begin action")
        line = f"{name} {self.context.idempotency_key} {self.context.attempt}\n"
        with Path(self.ledger).open("a") as file:
            file.write(line)
        REAPER.pass_by("end action")
        self.legs.append(name)

    def definition(self) -> Section[list[str]]:
        return S(
            Step("out", self.leg, "out"),
            Step("there", self.leg, "there"),
            WaitFor("nap", NAP),
            Step("back", self.leg, "back"),
            Return(lambda: self.legs),
        )


class Stand(Workflow):
    """A step that opens a pipe, and so stands until somebody writes into it; and one behind it."""

    pipe: str

    def stand(self) -> None:
        Path(self.pipe).read_text("utf-8")

    def after(self) -> None: ...

    def definition(self) -> Section[None]:
        return S(Step(self.stand), Step(self.after), Return(None))


REAPER = Reaper("nowhere", 1)


def main(store: str, port: str, scheduler: str, point: str = "nowhere", host: str = "127.0.0.1") -> None:
    global REAPER  # noqa: PLW0603 - the actions look for it
    REAPER = Reaper(point, 1)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    sweeper.GRACE = timedelta(0)  # type: ignore[misc]
    keys = [KEY] if host != "127.0.0.1" else []
    runner = Runner([Trip, Stand], store=store, scheduler=scheduler, base_url=f"http://127.0.0.1:{port}", hmac_keys=keys)
    REAPER.watch(runner.store)
    assert runner.requests is not None
    wake = runner.scheduler.wake

    def watched(key: Any, at: Any) -> bool:
        REAPER.pass_by("before wake")
        taken = wake(key, at)
        REAPER.pass_by("after wake")
        return taken

    runner.requests.wake = runner.scheduler.wake = watched  # type: ignore[method-assign]
    serve(runner, host=host, port=int(port), insecure=not keys, ready=lambda url: print(url, os.getpid(), flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
