"""Looks whether a configuration works and whether its work gets done: what `asyncflow doctor` prints.

Every check says what it found and, where something is wrong, what to do. One that fails does not keep the others from being made.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias

from asyncflow import AsyncflowError, Status, limits
from runner.durations import about
from runner.runner import Runner
from runner.stores.base import Conflict, Exists, Failed, Record, Saved, Write

Verdict: TypeAlias = Literal["ok", "look", "wrong"]
"""`look`: nothing is broken, but somebody should see to it. `wrong`: work is not done, or not safe."""

OVERDUE: Final = timedelta(seconds=60 + limits.SWEEP_PERIOD_SECONDS + limits.SWEEP_GRACE_SECONDS)
"""How long something may be due before nobody seems to be at work: a cron job sweeps once a minute, a worker more often."""
PROBE: Final = "asyncflow-doctor"
"""The workflow of the record that is written and deleted again; no code has one of this name."""
NAMED: Final = 3
"""How many of the instances that need somebody are named."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found."""

    check: str
    verdict: Verdict
    text: str
    """What was found and, if it is not well, what to do."""


def examine(runner: Runner) -> Iterator[Finding]:
    """Make all checks, one after the other; none raises. Nothing is changed but a record of its own, which is deleted again."""
    checks: list[tuple[str, Callable[[Runner], Finding]]] = [
        ("store", _reads), ("writes", _writes), ("questions", _questions), ("clock", _clock), ("scheduler", _scheduler),
        ("overdue", _overdue), ("stuck", _stuck),
    ]  # fmt: skip
    for name, check in checks:
        try:
            yield check(runner)
        except AsyncflowError as error:
            yield Finding(name, "wrong", error.message)


def _names(runner: Runner) -> list[str]:
    return list(runner.definitions)


def _reads(runner: Runner) -> Finding:
    runner.store.get(PROBE, "nothing")
    return Finding("store", "ok", "it answers")


def _writes(runner: Runner) -> Finding:
    """Create a record and delete it."""
    store, now = runner.store, runner.store.now()
    record = Record(
        workflow=PROBE,
        id=secrets.token_hex(8),
        uid=secrets.token_hex(16),
        rev=1,
        status=Status.Cancelled.value,
        document=b"{}",
        state=b"{}",
        created_at=now,
        updated_at=now,
        due_at=None,
        expires_at=None,
        labels={},
        holders=frozenset(),
        unplaced=False,
    )
    (outcome,) = store.commit([Write(record, None)])
    match outcome:
        case Saved(revision):
            store.delete(PROBE, record.id, revision)
            return Finding("writes", "ok", "a record was saved and deleted again")
        case Failed(error):
            return Finding("writes", "wrong", error.message)
        case Conflict() | Exists():
            return Finding(
                "writes", "wrong", f"a new record was refused as {type(outcome).__name__}: is something else writing here?"
            )


def _questions(runner: Runner) -> Finding:
    """Ask what lists, workers and sweeps ask: a store that needs indexes for it says which one is missing."""
    store, names = runner.store, _names(runner)
    store.list(names, page_size=1)
    store.list(names, status=Status.Running, page_size=1)
    labels = 0
    for definition in runner.definitions.values():
        for label in definition.labels:
            store.list([definition.name], filter=f'labels.{label} = "{PROBE}"', page_size=1)
            labels += 1
    store.next_due(names)
    store.expired(names, now=store.now(), limit=1)
    store.unfit(names)
    return Finding("questions", "ok", f"lists, labels ({labels}) and due work can be asked for")


def _clock(runner: Runner) -> Finding:
    ahead = (runner.store.now() - datetime.now(UTC)).total_seconds()
    if abs(ahead) > limits.CLOCK_SKEW_SECONDS:
        way = "behind" if ahead > 0 else "ahead of"
        text = f"this host's clock is {abs(ahead):.1f} s {way} the store's: set it (NTP), or timers and leases seem early or late"
        return Finding("clock", "wrong", text)
    return Finding("clock", "ok", f"within {limits.CLOCK_SKEW_SECONDS} s of the store's")


def _scheduler(runner: Runner) -> Finding:
    if not runner.scheduler.delivers:
        return Finding("scheduler", "ok", "local: steps run where `asyncflow serve` or `asyncflow worker` does")
    faults = runner.scheduler.faults()
    if faults:
        return Finding("scheduler", "wrong", "; ".join(faults))
    if not runner.terms.verified:
        text = "deliveries prove nothing: set service_account or hmac_keys, or anybody who reaches /tasks/wake may run steps"
        return Finding("scheduler", "wrong", text)
    return Finding("scheduler", "ok", f"its queues take tasks for {runner.terms.base_url}")


def _overdue(runner: Runner) -> Finding:
    due = runner.store.next_due(_names(runner))
    late = timedelta(0) if due is None else runner.store.now() - due
    if due is None:
        return Finding("overdue", "ok", "nothing waits for its time")
    if late <= OVERDUE:
        return Finding("overdue", "ok", f"next: {due.isoformat(timespec='seconds')}")
    who = "does the cron job call /tasks/sweep?" if runner.scheduler.delivers else "does a worker run?"
    return Finding(
        "overdue", "wrong", f"something has been due for {about(late)}, since {due.isoformat(timespec='seconds')}: {who}"
    )


def _stuck(runner: Runner) -> Finding:
    store, names = runner.store, _names(runner)
    page = store.list(names, status=Status.Paused, page_size=limits.PAGE_SIZE)
    paused = [f"{one.workflow}/{one.id}" for one in page.items]
    unfit = [f"{one.workflow}/{one.id}" for one in store.unfit(names)]
    more = "" if page.next_page_token is None else " or more"
    said = [
        f"{len(paused)}{more} paused ({_some(paused)}): `asyncflow show` says why, then retry, skip or resume" if paused else "",
        f"{len(unfit)} that this code cannot read or place ({_some(unfit)}): bring back the code that can" if unfit else "",
    ]
    text = "; ".join(one for one in said if one)
    return Finding("stuck", "look", text) if text else Finding("stuck", "ok", "nobody needs an operator")


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")


__all__ = ["OVERDUE", "PROBE", "Finding", "Verdict", "examine"]
