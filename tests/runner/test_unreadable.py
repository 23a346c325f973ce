"""Rule 23: what this code cannot read stays as it is, is tried again, then parked in columns; `resume` looks again."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic_core import from_json, to_json

from asyncflow import After, For, On, Return, S, Section, Select, Status, Workflow, event, limits, query
from asyncflow.errors import Unavailable
from runner import Handle, Runner
from runner.stores.base import Key, Stored, Write
from tests.runner.clocks import Clock
from tests.runner.conftest import Open
from tests.runner.gates import PATIENCE

DAY = timedelta(days=1)
QUARTER = timedelta(minutes=20)
"""Longer than the longest delay between two tries."""


class Letters(Workflow, name="Doc"):
    """The newer code: its field holds letters."""

    value: str
    opened: int = 0

    @event
    def open(self) -> int:
        self.opened += 1
        return self.opened

    @query
    def shown(self) -> str:
        return self.value

    def definition(self) -> Section[str]:
        return S(
            For("closed", lambda: self.opened < 2, Select("wait", On(self.open), After(DAY, Return("too late")))),
            Return("open"),
        )


class Numbers(Letters, name="Doc"):
    """The older code: its field holds numbers."""

    value: int  # type: ignore[assignment]


def damage(runner: Runner, handle: Handle[Any], document: bytes) -> Stored:
    """Put *document* in place of the instance's, due now."""
    stored = stored_of(runner, handle)
    record = replace(stored.record, document=document, due_at=runner.store.now(), rev=stored.record.rev + 1)
    runner.store.commit([Write(record, stored.revision)])
    return stored_of(runner, handle)


def stored_of(runner: Runner, handle: Handle[Any]) -> Stored:
    stored = runner.store.get("Doc", handle.id)
    assert stored is not None
    return stored


def try_again(runner: Runner, clock: Clock) -> None:
    """Let one try come and end."""
    clock.advance(QUARTER)
    assert runner.wait_idle(PATIENCE)


def newer_format(document: bytes) -> bytes:
    return to_json({**from_json(document), "version": from_json(document)["version"] + 1})


GARBAGE = [b"\xff\xfe not JSON", b"[1, 2]", b"{}", b'{"version": 1}', b'{"version": "one"}']


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_cannot_be_read_is_tried_again_then_parked_and_stays_as_it_is(
    garbage: bytes, working: Open, clock: Clock, url: str
) -> None:
    runner = working(Letters, store=url, clock=clock)
    handle = runner.start(Letters(value="a"))
    before = damage(runner, handle, garbage)
    for tries in range(1, limits.RETRY_ATTEMPTS):
        try_again(runner, clock)
        stored = stored_of(runner, handle)
        assert (stored.tries, stored.reason) == (tries, None)
    try_again(runner, clock)
    stored = stored_of(runner, handle)
    assert stored.reason is not None
    assert (stored.record.status, stored.record.due_at) == ("Paused", None)
    assert (stored.record.document, stored.record.state) == (before.record.document, before.record.state)
    assert handle.status is Status.Paused
    try_again(runner, clock)
    assert stored_of(runner, handle).tries == stored.tries


def test_a_state_that_does_not_fit_is_tried_again_then_parked(working: Open, clock: Clock, url: str, opened: Open) -> None:
    newer = opened(Letters, store=url, clock=clock)
    handle = newer.start(Letters(value="a"))
    handle.send(Letters.open)
    before = stored_of(newer, handle)
    older = working(Numbers, store=url, clock=clock)
    clock.advance(DAY)
    for _ in range(limits.RETRY_ATTEMPTS):
        try_again(older, clock)
    stored = stored_of(older, handle)
    assert stored.reason is not None
    assert "value" in stored.reason
    assert (stored.record.document, stored.record.state) == (before.record.document, before.record.state)


def test_what_is_of_a_newer_format_is_never_parked(working: Open, clock: Clock, url: str) -> None:
    runner = working(Letters, store=url, clock=clock)
    handle = runner.start(Letters(value="a"))
    before = damage(runner, handle, newer_format(stored_of(runner, handle).record.document))
    for _ in range(limits.RETRY_ATTEMPTS + 5):
        try_again(runner, clock)
    stored = stored_of(runner, handle)
    assert (stored.reason, stored.tries) == (None, limits.RETRY_ATTEMPTS + 5)
    assert stored.record.document == before.record.document
    with pytest.raises(Unavailable, match="run a newer asyncflow"):
        handle.send(Letters.open)


@pytest.fixture
def parked(working: Open, opened: Open, clock: Clock, url: str) -> Handle[Numbers]:
    """An instance of the newer code, parked by the older code, seen by the older code."""
    handle = opened(Letters, store=url, clock=clock).start(Letters(value="a"))
    older = working(Numbers, store=url, clock=clock)
    clock.advance(DAY)
    for _ in range(limits.RETRY_ATTEMPTS):
        try_again(older, clock)
    seen = older.get(Numbers, handle.id)
    assert seen.status is Status.Paused
    return seen


@pytest.mark.parametrize(
    "use",
    [
        lambda handle: handle.send(Numbers.open),
        lambda handle: handle.query(Numbers.shown),
        lambda handle: handle.cancel(),
        lambda handle: handle.pause(),
        lambda handle: handle.kill(),
        lambda handle: handle.skip(),
        lambda handle: handle.state,
        lambda handle: handle.waiting,
    ],
)
def test_meanwhile_everything_but_resume_is_unavailable_with_the_reason(use: Any, parked: Handle[Numbers]) -> None:
    before = stored_of(parked._runner, parked)
    with pytest.raises(Unavailable, match="value"):
        use(parked)
    assert stored_of(parked._runner, parked) == before


def test_resume_lets_code_look_again_that_still_cannot_read_it(parked: Handle[Numbers], clock: Clock) -> None:
    runner = parked._runner
    before = stored_of(runner, parked)
    parked.resume()
    assert runner.wait_idle(PATIENCE)
    after = stored_of(runner, parked)
    assert after.tries > before.tries
    assert after.reason is not None
    assert after.record.document == before.record.document


def test_resume_by_code_that_can_read_it_clears_the_mark(parked: Handle[Numbers], opened: Open, clock: Clock, url: str) -> None:
    newer = opened(Letters, store=url, clock=clock)
    handle = newer.get(Letters, parked.id)
    handle.resume()
    stored = stored_of(newer, parked)
    assert (stored.reason, stored.tries) == (None, 0)
    assert handle.output == "too late"


def test_an_event_by_code_that_can_read_it_clears_the_mark(parked: Handle[Numbers], opened: Open, clock: Clock, url: str) -> None:
    newer = opened(Letters, store=url, clock=clock)
    assert newer.get(Letters, parked.id).query(Letters.shown) == "a"
    newer.get(Letters, parked.id).cancel()
    assert stored_of(newer, parked).reason is None


def test_a_runner_looks_at_its_start_at_what_older_code_has_parked(
    parked: Handle[Numbers], working: Open, clock: Clock, url: str
) -> None:
    newer = working(Letters, store=url, clock=clock)
    assert newer.get(Letters, parked.id).result(PATIENCE) == "too late"


def test_a_runner_that_still_cannot_read_it_counts_no_try_at_its_start(
    parked: Handle[Numbers], working: Open, clock: Clock, url: str
) -> None:
    before = stored_of(parked._runner, parked)
    other = working(Numbers, store=url, clock=clock)
    assert other.wait_idle(PATIENCE)
    assert stored_of(other, parked) == before


def test_the_timers_of_what_was_deferred_go_on_once_it_can_be_read(working: Open, opened: Open, clock: Clock, url: str) -> None:
    """It is due at its deadline again, not at the next try, though nothing else about it has changed."""
    newer = opened(Letters, store=url, clock=clock)
    handle = newer.start(Letters(value="a"))
    due = stored_of(newer, handle).record.due_at
    older = working(Numbers, store=url, clock=clock)
    older._worker.wake(Key("Doc", handle.id))  # type: ignore[union-attr]
    assert older.wait_idle(PATIENCE)
    older.drain()
    assert stored_of(newer, handle).tries == 1
    newer.__enter__()
    assert newer.wait_idle(PATIENCE)
    assert stored_of(newer, handle).tries == 0
    assert newer.store.next_due(["Doc"]) == due
