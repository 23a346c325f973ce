"""What must be true in the end, whatever was killed when: of the database, by the word of the ledger."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import apsw
from pydantic_core import from_json

from asyncflow import Status
from runner.stores.base import Stored
from runner.stores.sqlite import SqliteStore
from tests.crash import ledger as ledgers
from tests.crash.ledger import Line
from tests.crash.sessions import Script, script
from tests.crash.workflows import ALL

AT_MOST_ONCE = "charge"


@dataclass
class Account:
    """What an audit found."""

    faults: list[str] = field(default_factory=list)
    instances: int = 0
    events: int = 0
    """Acknowledged ones."""
    steps: int = 0
    """Visits of steps that were finished."""
    attempts: int = 0
    repeated: int = 0
    """Attempts beyond the first of a visit."""
    waits: list[float] = field(default_factory=list)
    """How long after a restart each attempt that a kill had cut off was begun again, in seconds."""


def audit(folder: Path, store_path: Path | None = None, *, given_back: bool = False, stopped: bool = False) -> Account:
    """Look through the database and the ledger in *folder*.

    Args:
        folder: What a siege has left.
        store_path: Of the database, if it is elsewhere.
        given_back: Attempts may have been given back, so that their numbers come again.
        stopped: Processes stood still for longer than a lease, so that an attempt may begin after the next one.
    """
    path = store_path or folder / "store.db"
    account = Account()
    lines = list(ledgers.read(folder / "ledger"))
    _check_file(path, account)
    store = SqliteStore(path)
    try:
        runs = _runs(lines)
        for id_, said in _by_instance(lines).items():
            account.instances += 1
            number = int(id_.lstrip("abcdefghijklmnopqrstuvwxyz"))
            plan = script(number)
            stored = store.get(type(plan.workflow).__name__, id_)
            if stored is None:
                if any(line.what == "started" for line in said):
                    account.faults.append(f"{id_}: its start was acknowledged, and it is gone")
                continue
            account.faults += (f"{id_}: {fault}" for fault in _faults(plan, stored, said, account))
            account.faults += (f"{id_}: {fault}" for fault in _faults_of_history(plan, store, stored))
        account.faults += _faults_of_runs(runs, account, given_back=given_back, stopped=stopped)
        account.faults += _strangers(store, lines)
        account.waits = _waits(lines)
    finally:
        store.close()
    return account


def _check_file(path: Path, account: Account) -> None:
    connection = apsw.Connection(str(path))
    (found,) = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    if found != ("ok",):
        account.faults.append(f"the file is corrupt: {found}")


def _by_instance(lines: list[Line]) -> dict[str, list[Line]]:
    found: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line.id:
            found[line.id].append(line)
    return found


def _strangers(store: SqliteStore, lines: list[Line]) -> Iterator[str]:
    wanted = {line.id for line in lines if line.what == "wants"}
    for workflow in ALL:
        token: str | None = None
        while True:
            page = store.list([workflow.__name__], page_size=1_000, page_token=token)
            yield from (f"{item.id} is there, and nobody wanted it" for item in page.items if item.id not in wanted)
            token = page.next_page_token
            if token is None:
                break


def _faults(plan: Script, stored: Stored, said: list[Line], account: Account) -> Iterator[str]:
    """Whether it came to its end, and counted everything once."""
    record = stored.record
    if record.status != Status.Finished:
        yield f"it has not come to its end: it is {record.status}"
        return
    output = from_json(record.document).get("output")
    if output != plan.output:
        yield f"it ended with {output!r} in place of {plan.output!r}"
    counts: dict[str, int] = from_json(record.state)["counts"]
    for name in plan.expected - counts.keys():
        yield f"{name!r} never happened"
    for name, times in counts.items():
        if name not in plan.expected | plan.either:
            yield f"{name!r} happened, and should not have"
        elif times != 1:
            yield f"{name!r} happened {times} times"
    if plan.either and len(plan.either & counts.keys()) != 1:
        yield f"of {sorted(plan.either)} happened {sorted(counts)}"
    for line in said:
        if line.what == "told":
            account.events += 1
            sending = plan.sendings[int(line.name.split()[1])]
            if line.value != sending.answer:
                yield f"{sending} was answered with {line.value!r}"
    if plan.either and "charge" in counts and not any(line.what == "ran" for line in said):
        yield "it was charged by a run that never ended"


def _faults_of_history(plan: Script, store: SqliteStore, stored: Stored) -> Iterator[str]:
    entries: list[Any] = []
    token: str | None = None
    while True:
        page = store.history(stored.record.workflow, stored.record.id, page_size=1_000, page_token=token)
        entries += page.entries
        token = page.next_page_token
        if token is None:
            break
    if [entry["n"] for entry in entries] != list(range(1, len(entries) + 1)):
        yield f"the numbers of its history have gaps: {[entry['n'] for entry in entries]}"
    kinds = Counter(entry["kind"] for entry in entries)
    if (kinds["started"], kinds["ended"]) != (1, 1):
        yield f"it started {kinds['started']} times and ended {kinds['ended']} times"
    if kinds["event"] != len(plan.sendings):
        yield f"its history has {kinds['event']} events, {len(plan.sendings)} were sent"
    finished = len(plan.steps - {"rent"})
    if plan.steps and kinds["step"] != finished:
        yield f"its history has {kinds['step']} finished steps in place of {finished}"


Runs = dict[tuple[str, str], list[Line]]


def _runs(lines: list[Line]) -> Runs:
    """The attempts of each visit, by instance and by what the step does, in the order in which they began."""
    found: Runs = defaultdict(list)
    for line in lines:
        if line.what == "run":
            found[line.id, line.name].append(line)
    return found


def _faults_of_runs(runs: Runs, account: Account, *, given_back: bool, stopped: bool) -> Iterator[str]:
    keys: dict[str, tuple[str, str]] = {}
    for visit, attempts in runs.items():
        account.steps += 1
        account.attempts += len(attempts)
        account.repeated += len(attempts) - 1
        where = f"{visit[0]}: {visit[1]}"
        if len({line.key for line in attempts}) != 1:
            yield f"{where}: its attempts ran under {len({line.key for line in attempts})} idempotency keys"
        elif keys.setdefault(attempts[0].key, visit) != visit:
            yield f"{where}: the idempotency key of {keys[attempts[0].key]} was used again"
        numbers = [line.attempt for line in attempts]
        if not given_back and (sorted(numbers) if stopped else numbers) != sorted(set(numbers)):
            yield f"{where}: attempts began in the order {numbers}"
        if visit[1] == AT_MOST_ONCE and len(attempts) > 1:
            yield f"{where}: it ran {len(attempts)} times"


def _waits(lines: list[Line]) -> list[float]:
    """How long after the next life of the same place was up an attempt was begun again that a kill had cut off."""
    ups: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line.what == "up":
            ups[line.who.split("-")[0]].append(line)
    next_up = {before.who: after for place in ups.values() for before, after in pairwise(place)}
    waits: list[float] = []
    for attempts in _runs(lines).values():
        for cut, again in pairwise(attempts):
            up = next_up.get(cut.who)
            if up is not None and again.who == up.who:
                waits.append(again.at - up.at)
    return waits
