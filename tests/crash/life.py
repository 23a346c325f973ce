"""One life of a process: a Runner on the file, with its clients, until it is killed or told to end."""

import json
import logging
import os
import select
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Final

from runner import Runner
from runner.stores.base import Key, Outcomes, Store, Write
from tests.crash.ledger import Ledger
from tests.crash.sessions import Sessions
from tests.crash.workflows import ALL, conditions

CONCURRENCY: Final = 8
POINTS: Final = (
    "before start",
    "after start",
    "before event",
    "after event",
    "before take",
    "after take",
    "begin action",
    "end action",
    "before finish",
    "after finish",
)
"""Where a process may die by itself: around each kind of save, when it is on the disk and nobody has been told."""


@dataclass(frozen=True)
class Life:
    """How to live.

    Args:
        folder: Where the ledger is.
        name: Of this process in the ledger.
        store: The database.
        prefix: Of the instances that its clients begin.
        dies_at: One of `POINTS`, and the how manieth time there; None: nowhere.
        ending: Begin nothing new, and return when all that was begun has ended.
        lease_seconds: How long leases hold.
        drain_seconds: How long a SIGTERM waits for what runs.
        seconds_async, failures: See `tests.crash.workflows`.
    """

    folder: Path
    name: str
    store: Path
    prefix: str = "i"
    dies_at: tuple[str, int] | None = None
    ending: bool = False
    lease_seconds: float = 330
    drain_seconds: float = 25
    seconds_async: float = 0.02
    failures: float = 0.1


class Reaper:
    """Kills this process at a named point."""

    def __init__(self, point: str, times: int) -> None:
        self._point = point
        self._left = times
        self._lock = threading.Lock()
        self._tokens: dict[Key, frozenset[str]] = {}

    def pass_by(self, point: str) -> None:
        """Die, if this is the point and the time."""
        if point == self._point:
            with self._lock:
                self._left -= 1
                if not self._left:
                    os.kill(os.getpid(), signal.SIGKILL)
                    threading.Event().wait()

    def watch(self, store: Store) -> None:
        """Pass by the points around the saves of *store*."""
        commit: Callable[[Sequence[Write]], Outcomes] = store.commit

        def watched(writes: Sequence[Write]) -> Outcomes:
            kinds = {kind for write in writes for kind in self._kinds(write)}
            for kind in sorted(kinds):
                self.pass_by(f"before {kind}")
            outcomes = commit(writes)
            for kind in sorted(kinds):
                self.pass_by(f"after {kind}")
            return outcomes

        store.commit = watched  # type: ignore[method-assign]

    def _kinds(self, write: Write) -> set[str]:
        if write.expected is None:
            return {"start"}
        threads = json.loads(write.record.document)["threads"]
        tokens = frozenset(thread["lease"]["token"] for thread in threads if "lease" in thread)
        key = Key(write.record.workflow, write.record.id)
        before = self._tokens.get(key, frozenset())
        self._tokens[key] = tokens
        kinds = {kind for kind, some in (("take", tokens - before), ("finish", before - tokens)) if some}
        return kinds or {"event"}


def live(life: Life, up: Connection) -> None:
    """Live until killed; *up* hears a word when the Runner works. SIGTERM ends it as an orchestrator would."""
    logging.basicConfig(filename=life.folder / "log", level=logging.WARNING, format=f"{life.name} %(message)s")
    threading.Thread(target=_die_with, args=(up,), daemon=True).start()
    told_to_end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told_to_end.set())
    path = life.folder / "ledger"
    ledger = Ledger(path, life.name)
    conditions.ledger, conditions.seconds_async, conditions.failures = ledger, life.seconds_async, life.failures
    runner = Runner(
        ALL,
        store=f"sqlite:///{life.store}",
        concurrency=CONCURRENCY,
        lease=timedelta(seconds=life.lease_seconds),
    )
    if life.dies_at is not None:
        reaper = Reaper(*life.dies_at)
        reaper.watch(runner.store)
        conditions.passing = lambda point: reaper.pass_by(f"{point} action")
    with runner:
        ledger.note("up")
        up.send("up")
        sessions = Sessions(runner, ledger, path, life.prefix, ending=life.ending)

        def serve() -> None:
            sessions.run()
            told_to_end.set()

        threading.Thread(target=serve, daemon=True).start()
        told_to_end.wait()
        sessions.stopping.set()
        runner.drain(life.drain_seconds)
    ledger.note("down")


def _die_with(up: Connection) -> None:
    """End when whoever hears *up* has gone, so that nobody lives on after a siege that was broken off."""
    gone = select.poll()
    gone.register(up.fileno(), 0)  # an error is told without being asked for
    gone.poll()
    os.kill(os.getpid(), signal.SIGKILL)


def random_point(dice: Random) -> tuple[str, int]:
    """Draw a point to die at: soon, but not always at the first time."""
    return dice.choice(POINTS), dice.randint(1, 12)
