"""A process that works at all examples on one store, for tests that let several share them and kill one.

    python -m tests.e2e.hands STORE FOLDER LEASE [DIES_AT]

Each attempt of a step is a line in the ledger in FOLDER before it does anything; the bank's accounts are a file beside it.
The process dies within its DIES_AT-th attempt. `ready` on standard output says that it works; it ends with its input.
"""

import fcntl
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from inspect import iscoroutinefunction
from pathlib import Path
from threading import Lock
from typing import Any, Final

from asyncflow import Workflow
from examples import transfer
from examples.agent import Assistant
from examples.approval import Approval
from examples.fan_out import Survey
from examples.pizza import PizzaOrder
from examples.transfer import Bank, Transfer
from runner import Runner
from runner.stores import postgres as postgres_store
from tests.crash.ledger import Ledger

STEPS: Final[dict[type[Workflow], tuple[str, ...]]] = {
    PizzaOrder: ("tell_kitchen",),
    Transfer: ("withdraw", "give_back", "deposit"),
    Survey: ("ask",),
    Approval: ("ask", "remind"),
    Assistant: ("think", "run_tool", "remember"),
}
"""The examples, and what their steps do."""


class SharedBank(Bank):
    """The bank of the example, with its books in a file: all processes see one world."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__({"ann": 1_000_00, "bob": 0, "eve": 0}, closed=frozenset({"eve"}))

    def book(self, account: str, cents: int, key: str) -> None:
        with self.opened():
            super().book(account, cents, key)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Have the books to oneself; they are kept whatever comes of it."""
        with self._path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            if text := file.read():
                books = json.loads(text)
                self.accounts, self.calls, self.booked = books["accounts"], Counter(books["calls"]), set(books["booked"])
            try:
                yield
            finally:
                file.truncate(0)
                json.dump({"accounts": self.accounts, "calls": self.calls, "booked": [*self.booked]}, file)


class Hand:
    """Notes what actions do, and dies in the middle of one."""

    def __init__(self, path: Path, dies_at: int) -> None:
        self._ledger = Ledger(path, str(os.getpid()))
        self._lock = Lock()
        self._left = dies_at

    def begin(self, workflow: Workflow) -> None:
        context = workflow.context
        self._ledger.note("run", id=context.id, name=context.step, key=context.idempotency_key, attempt=context.attempt)
        with self._lock:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, action: Callable[..., Any]) -> Callable[..., Any]:
        """Give an action that is noted before it does anything."""
        if iscoroutinefunction(action):

            @wraps(action)
            async def begun_async(workflow: Workflow, *arguments: Any) -> Any:
                self.begin(workflow)
                return await action(workflow, *arguments)

            return begun_async

        @wraps(action)
        def begun(workflow: Workflow, *arguments: Any) -> Any:
            self.begin(workflow)
            return action(workflow, *arguments)

        return begun


def main(store: str, folder: str, lease: str, dies_at: str = "0") -> None:
    """Work until the input ends."""
    # What the store has handed out to a process that dies is handed out again then (rule 22).
    postgres_store._HANDOUT = min(postgres_store._HANDOUT, int(float(lease) * 1_000_000))  # type: ignore[misc]
    transfer.bank = SharedBank(Path(folder) / "bank")
    hand = Hand(Path(folder) / "ledger", int(dies_at))
    for workflow, names in STEPS.items():
        for name in names:
            setattr(workflow, name, hand.watch(getattr(workflow, name)))
    with Runner([*STEPS], store=store, lease=timedelta(seconds=float(lease))):
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
