"""The ways a scenario is run: the simulation in three forms, and a Runner on a store.

A scenario is a function of a `Drive`. It starts instances, uses what `Simulation` and `runner.Handle` have in common,
and moves the clock. One source, so what holds in one way holds in each.
"""

import importlib
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any, Final, Protocol, TypeVar, cast, overload

import pytest

import asyncflow
from asyncflow import Defines, Failure, Simulation, Status, Workflow
from asyncflow.testing import Simulate, every_crash

I = TypeVar("I")  # noqa: E741 - input of an event
R = TypeVar("R")
W = TypeVar("W", bound=Workflow)
W_co = TypeVar("W_co", covariant=True)

START: Final = datetime(2024, 2, 28, 12, tzinfo=UTC)
"""Where every clock begins: two days are enough to meet a leap day."""
PATIENCE: Final = 30.0
"""Seconds that a Runner gets to come to rest: a slow machine takes less, so only a hang meets it."""


class Instance(Protocol[W_co]):
    """What a scenario may ask of an instance: the part that `Simulation` and `runner.Handle` share."""

    @overload
    def send(
        self,
        event: Callable[[Any], R],
        /,
        *,
        thread: str | None = None,
        caller: str | None = None,
        idempotency_key: str | None = None,
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
    ) -> Any: ...
    @overload
    def query(self, query: Callable[[Any], R], /) -> R: ...
    @overload
    def query(self, query: str, /) -> Any: ...
    def cancel(self) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def retry(self, thread: str = "main") -> None: ...
    def skip(self, thread: str = "main", value: object = None) -> None: ...
    @property
    def state(self) -> W_co: ...
    @property
    def output(self: "Instance[Defines[R]]") -> R | None: ...
    @property
    def status(self) -> Status: ...
    @property
    def error(self) -> Failure | None: ...
    @property
    def waiting(self) -> set[str]: ...
    @property
    def threads(self) -> dict[str, str]: ...


class Drive(Protocol):
    """Starts instances and moves the clock that they all live by."""

    def start(self, workflow: W, /) -> Instance[W]:
        """Start an instance; what is looked at afterwards is what it shows at rest."""

    def advance(self, by: timedelta, /) -> None:
        """Move the clock and let what is due happen. A step of it goes no further than the next timer of a chain."""


Scenario = Callable[[Drive], None]
Play = Callable[[Scenario], None]


def end_of(run: Instance[Workflow]) -> dict[str, object]:
    """Give what must be the same in every way of running, as one JSON-like object."""
    error = run.error
    return {
        "status": str(run.status),
        "output": cast("Instance[Any]", run).output,
        "error": error and (error.type, error.message, error.path),
        "state": run.state.model_dump(mode="json"),
        "threads": dict(sorted(run.threads.items())),
        "waiting": sorted(run.waiting),
    }


# -- the simulation ----------------------------------------------------------------------------------------------------


class SimulationDrive:
    """Drives `asyncflow.simulate`, with backoffs that wait for `advance` as they do on a Runner."""

    def __init__(self, simulate: Callable[..., Simulation[Any]], **arguments: Any) -> None:
        self._simulate = simulate
        self._arguments = {"skip_backoff": False, "now": START, **arguments}
        self._runs: list[Simulation[Any]] = []

    def start(self, workflow: W, /) -> Instance[W]:
        run = cast("Simulation[W]", self._simulate(workflow, **self._arguments))
        self._runs.append(run)
        return cast("Instance[W]", run)

    def advance(self, by: timedelta, /) -> None:
        for run in self._runs:
            run.advance(by)

    def ends(self) -> list[dict[str, object]]:
        """Give the end of each instance, in the order of their starts."""
        return [end_of(cast("Instance[Workflow]", run)) for run in self._runs]


def play_in_simulation(run: Scenario) -> None:
    run(SimulationDrive(asyncflow.simulate))


def play_evicted(run: Scenario) -> None:
    run(SimulationDrive(asyncflow.simulate, evict=True))


def play_with_every_crash(run: Scenario) -> None:
    def once(simulate: Simulate) -> list[dict[str, object]]:
        drive = SimulationDrive(simulate)
        run(drive)
        return drive.ends()

    every_crash(once)


# -- the Runner --------------------------------------------------------------------------------------------------------


class Clock:
    """The time of a Runner under test: it moves only when it is told to."""

    def __init__(self, start: datetime = START) -> None:
        self._now, self._lock = start, Lock()

    def now(self) -> datetime:
        with self._lock:
            return self._now

    def advance(self, by: timedelta, /) -> None:
        with self._lock:
            self._now += by


class Settled:
    """An instance on a Runner, looked at only when nothing is running and nothing is due."""

    def __init__(self, handle: Any, settle: Callable[[], None]) -> None:
        self._handle, self._settle = handle, settle

    def __getattr__(self, name: str) -> Any:
        self._settle()
        return getattr(self._handle, name)


class RunnerDrive:
    """Drives a Runner for each workflow, each on a store of its own, all by one clock."""

    def __init__(self, runner: Callable[..., Any], store_of: Callable[[int], str], stack: ExitStack) -> None:
        self._runner, self._store_of, self._stack = runner, store_of, stack
        self._clock = Clock()
        self._runners: list[Any] = []

    def start(self, workflow: W, /) -> Instance[W]:
        store = self._store_of(len(self._runners))
        runner = self._stack.enter_context(self._runner([type(workflow)], store=store, clock=self._clock))
        self._runners.append(runner)
        return cast("Instance[W]", Settled(runner.start(workflow), self.settle))

    def advance(self, by: timedelta, /) -> None:
        self.settle()
        self._clock.advance(by)
        self.settle()

    def settle(self) -> None:
        """Wait until no Runner has an action that runs or a document that is due.

        The one thing asked of a Runner that is not in its public signatures: `wait_idle(timeout)`, true when all is
        quiet at the clock's present time.
        """
        for runner in self._runners:
            assert runner.wait_idle(PATIENCE), "the runner did not come to rest"


def _play_on_runner(run: Scenario, store_of: Callable[[int], str]) -> None:
    runner = _runner_class()
    if runner is None:
        pytest.skip("runner not there yet")
    with ExitStack() as stack:
        run(RunnerDrive(runner, store_of, stack))


def _runner_class() -> Callable[..., Any] | None:
    try:
        found = getattr(importlib.import_module("runner"), "Runner", None)
    except ImportError:
        return None
    if found is None or "clock" not in inspect.signature(found).parameters or not hasattr(found, "wait_idle"):
        return None
    return cast("Callable[..., Any]", found)


# -- choosing ----------------------------------------------------------------------------------------------------------

WAYS: Final = ("simulate", "evict", "every_crash", "runner-memory", "runner-sqlite")


def player(way: str, tmp_path: Path) -> Play:
    """Give the function that runs a scenario in the named way."""
    match way:
        case "simulate":
            return play_in_simulation
        case "evict":
            return play_evicted
        case "every_crash":
            return play_with_every_crash
        case "runner-memory":
            return lambda run: _play_on_runner(run, lambda number: "memory://")
        case "runner-sqlite":
            return lambda run: _play_on_runner(run, lambda number: f"sqlite:///{tmp_path}/{number}.db")
        case _:
            raise ValueError(way)


def scenario(*, crash: bool = True) -> Callable[[Scenario], Callable[[Play], None]]:
    """Make a scenario a test that is run in every way; `crash=False` where attempts are scarce: a lost one counts."""
    ways = [way for way in WAYS if crash or way != "every_crash"]

    def decorate(run: Scenario) -> Callable[[Play], None]:
        def test(play: Play) -> None:
            play(run)

        test.__name__, test.__qualname__, test.__doc__ = run.__name__, run.__qualname__, run.__doc__
        test.__module__ = run.__module__
        return pytest.mark.parametrize("play", ways, indirect=True)(test)

    return decorate


def evicted(workflow: W | type[W], /, **arguments: Any) -> Simulation[W]:
    """Simulate with a reload after every save: what is not in the document is lost."""
    return asyncflow.simulate(workflow, evict=True, **arguments)
