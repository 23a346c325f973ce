"""Rule 24, while a deployment goes on: code of yesterday and code of today are at work at one store, and all instances end.

Each Runner stands for a process: it has bodies, workers and connections of its own.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Final

import pytest

from asyncflow import For, On, Return, S, Section, Select, Status, Step, WaitEvent, Workflow, event
from asyncflow.errors import AsyncflowError
from runner import Runner
from tests.e2e.waiting import until
from tests.runner.conftest import Open, opened, url, working
from tests.runner.gates import PATIENCE
from tests.servers.postgres import postgres, postgres_url

__all__ = ["opened", "postgres", "postgres_url", "url", "working"]

INSTANCES: Final = 24
ROUNDS: Final = 3

DONE: Counter[str] = Counter()
"""How often each step was run, by its idempotency key."""


class Yesterday(Workflow, name="Parcel"):
    """Packs, and waits to be told to go on; some rounds of it."""

    round: int = 0
    weighed: int = 0
    attempts: int = 0

    def pack(self) -> None:
        DONE[self.context.idempotency_key] += 1

    @event
    def go(self) -> None:
        self.round += 1

    def definition(self) -> Section[tuple[int, int, int]]:
        return S(
            For("rounds", lambda: self.round < ROUNDS, Step(self.pack), WaitEvent(self.go)),
            Return(lambda: (self.round, self.weighed, self.attempts)),
        )


class Today(Yesterday, name="Parcel"):
    """The same, with a step and a wait behind each round that yesterday's code has not heard of."""

    def weigh(self) -> None:
        DONE[self.context.idempotency_key] += 1
        self.weighed += 1
        self.attempts += self.context.attempt

    @event
    def sign(self) -> None: ...

    def definition(self) -> Section[tuple[int, int, int]]:
        return S(
            For(
                "rounds",
                lambda: self.round < ROUNDS,
                Step(self.pack),
                WaitEvent(self.go),
                Step(self.weigh),
                Select("door", On(self.sign)),
            ),
            Return(lambda: (self.round, self.weighed, self.attempts)),
        )


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.server("postgres"))])
def store(request: pytest.FixtureRequest) -> str:
    DONE.clear()
    given: str = request.getfixturevalue("url" if request.param == "sqlite" else "postgres_url")
    return given


def carry(old: Runner, new: Runner, id: str, dice: Random) -> int:
    """See one instance to its end, its events sent through either code; give how many rounds today's code has made."""
    parcel = new.get(Today, id)
    rounds = 0
    for _ in range(ROUNDS):
        until(lambda: "go" in parcel.waiting)
        if dice.random() < 0.5:
            old.get(Yesterday, id).send(Yesterday.go, timeout=PATIENCE)
        else:
            parcel.send(Today.go, timeout=PATIENCE)
            rounds += 1
            until(lambda: "sign" in parcel.waiting)
            with pytest.raises(AsyncflowError):
                old.get(Yesterday, id).send("sign", timeout=0)
            parcel.send(Today.sign, timeout=PATIENCE)
    assert parcel.result(PATIENCE) == (ROUNDS, rounds, rounds), "no attempt of a step was spent by code that does not know it"
    return rounds


def test_neither_code_parks_what_the_other_moves(store: str, working: Open) -> None:
    old, new = working(Yesterday, store=store), working(Today, store=store)
    ids = [f"p-{number}" for number in range(INSTANCES)]
    for number, id_ in enumerate(ids):
        if number % 2:
            old.start(Yesterday(), id=id_)
        else:
            new.start(Today(), id=id_)
    with ThreadPoolExecutor(8) as pool:
        rounds = sum(pool.map(lambda number: carry(old, new, ids[number], Random(number)), range(INSTANCES)))
    assert 0 < rounds < INSTANCES * ROUNDS, "both have been at work"
    assert len(DONE) == INSTANCES * ROUNDS + rounds
    assert set(DONE.values()) == {1}
    kinds = Counter(entry["kind"] for id_ in ids for entry in new.get(Today, id_).history())
    assert not {kind for kind in kinds if "park" in kind}, kinds


def test_what_yesterdays_code_alone_looks_at_goes_on_when_todays_comes(
    store: str, working: Open, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    old, sender = working(Yesterday, store=store), opened(Today, store=store)
    parcel = sender.start(Today(), id="p")
    old_parcel = old.get(Yesterday, "p")
    until(lambda: old_parcel.waiting == {"go"})
    parcel.send(Today.go)  # it stands at a step that nobody at work knows
    until(lambda: "no statement" in caplog.text)
    assert parcel.status is Status.Running
    new = working(Today, store=store)
    there = new.get(Today, "p")
    until(lambda: there.waiting == {"sign"})
    assert there.state.attempts == 1
