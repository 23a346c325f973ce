"""Kills a process again and again while it works, lets a last life come to its end, and looks at what is left."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Final, Self

from tests.crash.audit import Account, audit
from tests.crash.life import Life, live, random_point

LIFE_SECONDS_MAX: Final = 0.4
"""The longest that a process lives after it is up, before it is killed from outside."""
PATIENCE: Final = 120.0
"""Seconds until a life that should have begun or ended by itself is taken for hung."""


def _context() -> ForkServerContext:
    """A process that has imported everything forks the lives: a fresh interpreter each would take most of the time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.crash.life"])
    return context


class Lives:
    """Makes processes in one folder; the database may be elsewhere."""

    def __init__(self, folder: Path, store: Path | None = None) -> None:
        self.folder = folder
        self.store = store or folder / "store.db"
        self._context = _context()
        self._all: list[Running] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Leave nobody behind, whatever went wrong."""
        for running in self._all:
            running.kill()

    def begin(self, prefix: str = "i", **how: object) -> "Running":
        """Begin a life, and do not wait until it is up."""
        life = Life(self.folder, f"{prefix}-{len(self._all) + 1}", self.store, prefix, **how)  # type: ignore[arg-type]
        here, there = self._context.Pipe(duplex=False)
        process = self._context.Process(target=live, args=(life, there), daemon=True)
        process.start()
        there.close()
        self._all.append(Running(process, here, life))
        return self._all[-1]


class Running:
    """A process that lives."""

    def __init__(self, process: BaseProcess, up: object, life: Life) -> None:
        self.process = process
        self.life = life
        self._up = up

    def wait_up(self) -> bool:
        """Wait until its Runner works; False if it died before."""
        with suppress(EOFError):
            if self._up.poll(PATIENCE):  # type: ignore[attr-defined]
                return bool(self._up.recv())  # type: ignore[attr-defined]
        return False

    def wait_end(self, seconds: float = PATIENCE) -> int | None:
        """Wait until it has ended; give its exit code, None if it goes on."""
        self.process.join(seconds)
        return self.process.exitcode

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """Kill it with SIGKILL, if it lives."""
        self.process.kill()
        self.process.join()
        self._up.close()  # type: ignore[attr-defined]


@dataclass
class Figures:
    """What a siege came to."""

    kills: int = 0
    at_points: int = 0
    """How many of them at a named point, by the process itself."""
    seconds: float = 0
    account: Account = field(default_factory=Account)


def besiege(folder: Path, seed: int, kills: int, killed: Callable[[], None] = lambda: None) -> Figures:
    """Kill one process *kills* times, at moments and points drawn from *seed*; audit what is left.

    Args:
        folder: An empty one.
        seed: Of the moments and points.
        kills: How many.
        killed: Called after each kill.
    """
    dice, figures, began = Random(seed), Figures(), time.monotonic()
    with Lives(folder) as lives:
        for _ in range(kills):
            point = random_point(dice) if dice.random() < 0.5 else None
            early = dice.random() < 0.1  # while it starts
            lasts = dice.uniform(0, LIFE_SECONDS_MAX)
            running = lives.begin(dies_at=point)
            if not early:
                running.wait_up()
            _kill(running, lasts, figures)
            killed()
        end(lives)
    figures.account = audit(folder)
    figures.seconds = time.monotonic() - began
    return figures


def besiege_two(folder: Path, seed: int, kills: int, killed: Callable[[], None] = lambda: None) -> Figures:
    """As `besiege`, with two processes on the file, of which one is killed each time, while the other goes on."""
    dice, figures, began = Random(seed), Figures(), time.monotonic()
    with Lives(folder) as lives:
        pair = {prefix: lives.begin(prefix) for prefix in "ab"}
        for _ in range(kills):
            prefix = dice.choice("ab")
            running = pair[prefix]
            running.wait_up()
            _kill(running, dice.uniform(0, LIFE_SECONDS_MAX), figures)
            pair[prefix] = lives.begin(prefix, dies_at=random_point(dice) if dice.random() < 0.5 else None)
            killed()
        for running in pair.values():
            running.kill()
        for prefix in "ab":
            end(lives, prefix)
    figures.account = audit(folder)
    figures.seconds = time.monotonic() - began
    return figures


def stop_beyond_the_lease(folder: Path, seed: int, stops: int, *, lease_seconds: float = 1.0) -> Figures:
    """Let one of two processes stand still for longer than its leases, again and again; audit what is left."""
    dice, figures, began = Random(seed), Figures(), time.monotonic()
    with Lives(folder) as lives:
        pair = [lives.begin(prefix, lease_seconds=lease_seconds) for prefix in "ab"]
        for running in pair:
            running.wait_up()
        for _ in range(stops):
            running = dice.choice(pair)
            assert running.wait_end(dice.uniform(0, LIFE_SECONDS_MAX)) is None
            running.signal(signal.SIGSTOP)
            assert running.wait_end(dice.uniform(1, 2) * lease_seconds) is None
            running.signal(signal.SIGCONT)
        assert pair[0].wait_end(LIFE_SECONDS_MAX) is None
        for running in pair:
            running.kill()
        for prefix in "ab":
            end(lives, prefix)
    figures.account = audit(folder, stopped=True)
    figures.seconds = time.monotonic() - began
    return figures


def terminate_under_load(folder: Path, seed: int, times: int, *, drain_seconds: float = 0.5) -> tuple[Figures, float]:
    """End a process with SIGTERM in the middle of its work, again and again; no attempt fails by itself here.

    Returns:
        What it came to, and the longest that an end took, in seconds.
    """
    dice, figures, began = Random(seed), Figures(), time.monotonic()
    longest = 0.0
    with Lives(folder) as lives:
        for _ in range(times):
            running = lives.begin(drain_seconds=drain_seconds, seconds_async=3 * drain_seconds, failures=0)
            running.wait_up()
            assert running.wait_end(dice.uniform(0.1, LIFE_SECONDS_MAX)) is None
            told = time.monotonic()
            running.signal(signal.SIGTERM)
            code = running.wait_end()
            longest = max(longest, time.monotonic() - told)
            running.kill()
            assert code == 0, f"a drain ended with {code}; see {folder / 'log'}"
        end(lives, failures=0)
    figures.account = audit(folder, given_back=True)
    figures.seconds = time.monotonic() - began
    return figures, longest


def end(lives: Lives, prefix: str = "i", **how: object) -> None:
    """Live once more, until everything that was begun has come to its end."""
    last = lives.begin(prefix, ending=True, **how)
    code = last.wait_end()
    last.kill()
    assert code == 0, f"the last life did not come to its end: {code}; see {lives.folder / 'log'}"


def _kill(running: Running, after: float, figures: Figures) -> None:
    if running.wait_end(after) is not None:
        figures.at_points += 1
    running.kill()
    figures.kills += 1
    code = running.process.exitcode
    assert code == -signal.SIGKILL, f"{running.life.name} ended by itself: {code}; see {running.life.folder / 'log'}"


def fill_the_disk(folder: Path, disk: Path, seed: int) -> Figures:
    """Let *disk*, a small file system, be full for a while under a process at work; audit what is left."""
    dice, figures, began = Random(seed), Figures(), time.monotonic()
    with Lives(folder, disk / "store.db") as lives:
        running = lives.begin()
        running.wait_up()
        for _ in range(2):
            assert running.wait_end(dice.uniform(0, LIFE_SECONDS_MAX)) is None
            with (disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
                while True:
                    ballast.write(bytes(4_096))
            assert running.wait_end(dice.uniform(1, 2)) is None
            (disk / "ballast").unlink()
        assert running.wait_end(LIFE_SECONDS_MAX) is None
        running.kill()
        end(lives)
    figures.account = audit(folder, disk / "store.db")
    figures.seconds = time.monotonic() - began
    return figures
