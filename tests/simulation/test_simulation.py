"""The worker's very loop, and the very delivery of messages, answered by a world that is out to break them.

A failure prints its seed and what happened last; `make sim SEEDS=5000 FIRST=88` runs others.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from asyncflow import engine, leases, post
from asyncflow.activation import Activation
from asyncflow.instance import Message
from asyncflow.leases import Run
from runner.stores.base import Outcome, Record, Saved, Write
from runner.stores.memory import MemoryStore
from runner.work.activity import Activity, Gathered
from tests.simulation.seeds import run_seed
from tests.simulation.world import Faults, Violation, World

SEEDS = 300
PARTS = 6
"""Parts of them, for several processes to share."""
MUTANT_SEEDS = 150
"""A mutant that lives longer than this has found a hole."""


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_no_law_is_broken(part: int) -> None:
    for seed in range(part, SEEDS, PARTS):
        run_seed(seed)


def test_a_seed_gives_the_same_run_again() -> None:
    assert run_seed(7).trace == run_seed(7).trace


def test_every_kind_of_fault_happens() -> None:
    kinds = (
        "conflict",
        "not told",
        "refused",
        "is killed",
        "stands still",
        "fails",
        "past its time",
        "pause",
        "cancel",
    )
    said = "\n".join(line for seed in range(40) for line in run_seed(seed).trace)
    assert [kind for kind in kinds if kind not in said] == []


# -- mutants: each breaks one rule, and must be found ------------------------------------------------------------------

Mutate = Callable[[pytest.MonkeyPatch], None]


def without_compare_and_set(patch: pytest.MonkeyPatch) -> None:
    """Rule 6: the last writer wins."""
    commit = MemoryStore.commit

    def overwrite(self: MemoryStore, writes: Any) -> Any:
        def fitting(write: Write) -> Write:
            stored = self.get(write.record.workflow, write.record.id)
            return write if stored is None else Write(write.record, stored.revision, write.entries)

        return commit(self, [fitting(write) for write in writes])

    patch.setattr(MemoryStore, "commit", overwrite)


def ignoring_the_token(patch: pytest.MonkeyPatch) -> None:
    """Rule 14: a result is taken for whoever stands there now."""
    post_result = post._post_result

    def post_any(act: Activation, message: Message) -> None:
        for thread in act.instance.threads.values():
            if thread.lease is not None and thread.position == message.name and thread.lease.till is not None:
                message.token = thread.lease.token
        post_result(act, message)

    patch.setattr(post, "_post_result", post_any)


def running_in_doubt(patch: pytest.MonkeyPatch) -> None:
    """Rule 12: actions run though nobody knows whether their tokens are saved."""
    patch.setattr(Activity, "_mine", staticmethod(lambda runs, loaded: runs))


def not_looking_for_its_own_token(patch: pytest.MonkeyPatch) -> None:
    """Rule 12: after a lost answer nobody looks whether the lease is there."""
    patch.setattr(Activity, "_mine", staticmethod(lambda runs, loaded: []))


def losing_results_in_a_conflict(patch: pytest.MonkeyPatch) -> None:
    """Rule 6: what was decided is thrown away with what it was decided on."""
    save = Activity._save

    def forgetful(self: Activity, act: Any, runs: Any, view: Any) -> Any:
        runs, saved = yield from save(self, act, runs, view)
        if not saved:
            self._gathered = Gathered()
        return runs, saved

    patch.setattr(Activity, "_save", forgetful)


def with_one_token_for_all(patch: pytest.MonkeyPatch) -> None:
    """Rule 12: tokens are not fresh."""
    take_one = leases._take_one

    def stale(act: Any, thread: Any, place: Any, body: Any, alone: bool, token: str, *rest: Any) -> Run:
        return take_one(act, thread, place, body, alone, thread.id, *rest)

    patch.setattr(leases, "_take_one", stale)


def lapsing_too_early(patch: pytest.MonkeyPatch) -> None:
    """Rule 15: whoever comes by takes the lease away."""

    def lapse(act: Activation) -> None:
        for thread in act.in_order():
            if thread.lease is not None and thread.lease.till is not None and not act.instance.inbox:
                thread.lease.till = act.now
        original(act)

    original = engine._lapse
    patch.setattr(engine, "_lapse", lapse)


def forgetting_what_was_seen(patch: pytest.MonkeyPatch) -> None:
    """Rule 27: a repeated event is a new one."""
    patch.setattr(post, "_seen_before", lambda act, message: None)


def losing_the_due_index(patch: pytest.MonkeyPatch) -> None:
    """Rule 20: an instance with a lease is not found when it is over."""
    apply = MemoryStore._apply

    def without(self: MemoryStore, write: Write) -> Outcome:
        record: Record = write.record
        if record.holders:
            record = replace(record, due_at=None, holders=frozenset())
        return apply(self, Write(record, write.expected, write.entries))

    patch.setattr(MemoryStore, "_apply", without)


class Hasty(World):
    """Answers a client before anything is stored, and sometimes nothing ever is."""

    def commit(self, store: MemoryStore, write: Write, who: str) -> Outcome:
        if who.startswith("client") and write.expected is not None and self.happens(0.3):
            self.say(f"{who} is answered, and nothing is stored")
            return Saved(write.expected)
        return super().commit(store, write, who)


def find(open_world: Callable[[Random, Faults], World] = World) -> None:
    for seed in range(MUTANT_SEEDS):
        run_seed(seed, open_world=open_world)


@pytest.mark.slow
@pytest.mark.xfail(strict=True, raises=Violation)
@pytest.mark.parametrize(
    "mutate",
    [
        without_compare_and_set,
        ignoring_the_token,
        running_in_doubt,
        not_looking_for_its_own_token,
        losing_results_in_a_conflict,
        with_one_token_for_all,
        lapsing_too_early,
        forgetting_what_was_seen,
        losing_the_due_index,
    ],
)
def test_a_mutant_is_found(mutate: Mutate, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    find()


@pytest.mark.xfail(strict=True, raises=Violation)
def test_an_answer_before_the_save_is_found() -> None:
    find(Hasty)
