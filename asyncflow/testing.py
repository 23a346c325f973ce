"""What a test needs: `simulate`, `every_crash`, and the types of what they give.

`simulate` is exported by `asyncflow` too; the pytest fixture `simulate` comes with the package.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar, cast

from pydantic import JsonValue
from pydantic_core import to_json

from asyncflow.definition import Definition
from asyncflow.nodes import described
from asyncflow.simulation import START, WAYS, Faults, Held, Simulation, Way
from asyncflow.stepkeys import StepKey
from asyncflow.workflow import Workflow

T = TypeVar("T")
W = TypeVar("W", bound=Workflow)


def simulate(
    workflow: W | type[W],
    /,
    *,
    stubs: Mapping[StepKey, Callable[..., Any]] | None = None,
    hold: Collection[StepKey] = (),
    skip_backoff: bool = True,
    evict: bool = False,
    crash: tuple[Way, int] | None = None,
    document: Mapping[str, JsonValue] | None = None,
    now: datetime | None = None,
) -> Simulation[W]:
    """Start *workflow* under a virtual clock and run until every thread is blocked.

    Args:
        workflow: The object to start from; its class, to go on with *document*.
        stubs: Replaces the action of a step, found by its method, name or path; the stub gets the step's arguments.
        hold: Steps that stay in flight when they are reached: `Simulation.held`.
        skip_backoff: The clock moves to the next attempt by itself; False: `advance` does.
        evict: After every save the document goes through JSON into a new object with a new tree.
        crash: At the n-th save the process ends before it is stored, or after it, or lives and the answer is lost.
        document: Go on with what another simulation held.
        now: Where the clock starts.

    Raises:
        DefinitionError: the definition has problems: all of them, with path and source line.
        NotFound: a key of *stubs* or *hold* names no step; the text has those that there are.
        TypeError, ValueError: *workflow* is none; *document* is none that a simulation or a store holds; *now* has no zone.
    """
    faults = Faults(*crash) if crash is not None else Faults()
    return _simulate(
        workflow, stubs=stubs, hold=hold, skip_backoff=skip_backoff, evict=evict, faults=faults, document=document, now=now
    )


def _simulate(
    workflow: W | type[W],
    *,
    faults: Faults,
    stubs: Mapping[StepKey, Callable[..., Any]] | None = None,
    hold: Collection[StepKey] = (),
    skip_backoff: bool = True,
    evict: bool = False,
    document: Mapping[str, JsonValue] | None = None,
    now: datetime | None = None,
) -> Simulation[W]:
    cls: type[W] = workflow if isinstance(workflow, type) else type(workflow)
    if not issubclass(cls, Workflow):
        raise TypeError(f"expected an object of a class made from Workflow, or such a class, found {described(workflow)}")
    if now is not None and now.utcoffset() is None:
        raise ValueError(f"expected now= with a time zone, such as UTC, found {now.isoformat()}")
    definition = Definition.of(cls)
    stored = None if document is None else dict(document)
    if stored is not None and not {"workflow", "id", "state", "updated_at"} <= stored.keys():
        known = ", ".join(map(str, stored)) or "nothing"
        raise ValueError(f"expected document= to be what sim.document gives, found an object with {known}")
    if stored is None and isinstance(workflow, type):
        workflow = workflow()
    clock = now or (START if stored is None else datetime.fromisoformat(str(stored["updated_at"])))
    simulation: Simulation[W] = Simulation(
        definition, stubs=stubs or {}, hold=hold, skip_backoff=skip_backoff, evict=evict, faults=faults, now=clock
    )
    if stored is not None:
        text = to_json({name: value for name, value in stored.items() if name != "state"})
        simulation._take_over(text, to_json(stored["state"]))  # noqa: SLF001 (the two belong together)
        return simulation
    simulation._begin(definition.codec.dump(cast("W", workflow)))  # noqa: SLF001 (the two belong together)
    return simulation


class Simulate(Protocol):
    """`simulate`, as a test gets it from the fixture or from `every_crash`."""

    def __call__(self, workflow: W | type[W], /, **arguments: Any) -> Simulation[W]:
        """Start *workflow* as `simulate` does."""
        ...


_CRASHES: Final[dict[Way, str]] = {
    "before": "the process ended before that save was stored",
    "after": "the process ended after that save was stored",
    "lost": "the save was stored and its answer was lost",
}


def every_crash(run: Callable[[Simulate], T], /) -> T:
    """Call *run* once without a crash, then once for every save and each of the three ways to crash there.

    *run* gets the `simulate` to use and returns what must be the same at the end. A start or `send` that meets the crash is
    repeated with its key, as a client would. A workflow with scarce attempts (`max_attempts=1`), or whose end depends on the order
    of branches, may rightly differ.

    Returns:
        What all runs returned.

    Raises:
        AssertionError: naming save and way where one differs. What *run* itself raises has them in a note.
    """

    def one(faults: Faults) -> T:
        def start(workflow: Any, /, **arguments: Any) -> Any:
            return _simulate(workflow, faults=faults, **arguments)

        try:
            return run(start)
        except BaseException as error:
            error.add_note(
                "this was the run of every_crash without a crash"
                if faults.way is None
                else f"this was the run of every_crash with crash={(faults.way, faults.at)!r}: {_CRASHES[faults.way]}"
            )
            raise

    counted = Faults()
    expected = one(counted)
    for save in range(1, counted.saves + 1):
        for way in WAYS:
            found = one(Faults(way, save))
            if found != expected:
                raise AssertionError(f"crash={(way, save)!r}: expected {expected!r}, found {found!r}")
    return expected


__all__ = ["Held", "Simulate", "Simulation", "every_crash", "simulate"]
