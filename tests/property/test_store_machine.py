"""The same random operations on a store and on a plain dictionary: whatever one answers, the other does too."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pydantic import JsonValue

from asyncflow import limits
from asyncflow.errors import Malformed
from runner.stores.base import ENDED, Conflict, Exists, Key, Outcome, Record, Revision, Saved, Store, Write
from runner.stores.filters import matches, parse_filter
from runner.stores.memory import MemoryRows, MemoryStore
from runner.stores.sqlite import SqliteStore
from tests.conformance.lists import served

START = datetime(2026, 1, 31, 9, tzinfo=UTC)
HANDOUT = timedelta(seconds=limits.DUE_HANDOUT_SECONDS)
WORKFLOWS = ("Order", "Trip")
PROCESSES = ("host-1", "host-2")
FILTERS = (
    "",
    "status = Running",
    "status != Finished AND labels.size >= 2",
    "labels.size = 2",
    "labels.vip = true",
    "labels.vip != true",
    "labels.size = null",
    "state.paid > 1",
    "state.paid = 1 AND labels.vip = true",
    "updated_at >= 2026-01-31T09:00:20Z",
    "created_at >= 2026-01-31T09:00:20Z AND created_at < 2026-01-31T09:00:40Z",
    "status = Running AND labels.size = 2 AND labels.vip = true",
)

times = st.integers(0, 60).map(lambda seconds: START + timedelta(seconds=seconds))
keys = st.builds(Key, st.sampled_from(WORKFLOWS), st.sampled_from(["a", "b", "c", "d"]))
workflows = st.lists(st.sampled_from([*WORKFLOWS, "Nobody"]), unique=True)
labels = st.fixed_dictionaries(
    {}, optional={"size": st.sampled_from([1, 2, 2.0, "2", None]), "vip": st.sampled_from([True, False, 1])}
)
columns = st.fixed_dictionaries(
    {
        "uid": st.sampled_from(["u-1", "u-2"]),
        "rev": st.integers(1, 99),
        "status": st.sampled_from(["Running", "Paused", *ENDED]),
        "document": st.binary(max_size=4),
        "state": st.sampled_from([b'{"paid":1}', b'{"paid":2.5}', b'{"paid":null}', b"\xff"]),
        "created_at": times,
        "updated_at": times,
        "due_at": st.none() | times,
        "expires_at": st.none() | times,
        "labels": labels,
        "holders": st.frozensets(st.sampled_from(PROCESSES)),
        "unplaced": st.booleans(),
    }
)


@dataclass
class Row:
    """What the dictionary knows of an instance; `old` are revisions that fit no more."""

    record: Record
    revision: Revision
    wake_at: datetime | None
    old: list[Revision]
    claimed_by: str | None = None
    reason: str | None = None
    tries: int = 0
    history: list[tuple[datetime, list[JsonValue]]] = field(default_factory=list)


class StoreMachine(RuleBasedStateMachine):
    """Two handles on one store, either of which may be closed or left lying and opened again at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[Key, Row] = {}
        self.gone: dict[Key, list[Revision]] = {}
        self.next_entry = 1
        self.left_lying: list[Store] = []
        self.handles = [self.open_handle(), self.open_handle()]

    def open_handle(self) -> Store:
        raise NotImplementedError

    def teardown(self) -> None:
        for store in (*self.handles, *self.left_lying):
            store.close()

    def revision_for(self, key: Key, kind: str) -> Revision | None:
        row = self.model.get(key)
        if kind == "create":
            return None
        known = self.gone.get(key, []) + (row.old if row else [])
        if kind == "stale" and known:
            return known[-1]
        return row.revision if row else (known[-1] if known else None)

    # -- writing -------------------------------------------------------------------------------------------------------

    @rule(
        handle=st.integers(0, 1),
        asked=st.lists(
            st.tuples(keys, st.sampled_from(["create", "save", "save", "stale"]), columns, st.integers(0, 2)),
            min_size=1,
            max_size=4,
        ),
    )
    def commit(self, handle: int, asked: list[tuple[Key, str, dict[str, Any], int]]) -> None:
        writes = []
        for key, kind, changes, count in asked:
            entries = [{"n": self.next_entry + number} for number in range(count)]
            self.next_entry += count
            record = Record(workflow=key.workflow, id=key.id, **changes)
            writes.append(Write(record, self.revision_for(key, kind), entries))
        outcomes = self.handles[handle].commit(writes)
        assert len(outcomes) == len(writes)
        for write, outcome in zip(writes, outcomes, strict=True):
            self.apply(write, outcome)

    def apply(self, write: Write, outcome: Outcome) -> None:
        key = Key(write.record.workflow, write.record.id)
        row = self.model.get(key)
        if write.expected is None and row is not None:
            assert outcome == Exists()
            return
        if write.expected is not None and (row is None or row.revision != write.expected):
            assert outcome == Conflict()
            return
        assert isinstance(outcome, Saved)
        if row is None:
            row = self.model[key] = Row(write.record, None, None, [])
        else:
            row.old.append(row.revision)
        row.record = replace(write.record, uid=row.record.uid, created_at=row.record.created_at)
        assert outcome.revision not in (*row.old, *self.gone.get(key, []))
        row.revision, row.wake_at = outcome.revision, write.record.due_at
        row.claimed_by, row.reason, row.tries = None, None, 0
        if write.entries:
            row.history.append((write.record.updated_at, [entry["n"] for entry in write.entries]))

    @rule(handle=st.integers(0, 1), key=keys, kind=st.sampled_from(["save", "stale"]))
    def delete(self, handle: int, key: Key, kind: str) -> None:
        expected = self.revision_for(key, kind)
        if expected is None:
            return
        row = self.model.get(key)
        fits = row is not None and row.revision == expected
        assert self.handles[handle].delete(*key, expected) == fits
        if row is not None and fits:
            self.gone[key] = [*self.gone.get(key, []), *row.old, row.revision]
            del self.model[key]

    @rule(handle=st.integers(0, 1), key=keys, kind=st.sampled_from(["save", "stale"]), until=st.none() | times)
    def mark(self, handle: int, key: Key, kind: str, until: datetime | None) -> None:
        expected = self.revision_for(key, kind)
        if expected is None:
            return
        store, row = self.handles[handle], self.model.get(key)
        fits = row is not None and row.revision == expected
        if until is None:
            assert store.park(*key, expected, f"reason {self.next_entry}") == fits
        else:
            assert store.defer(*key, expected, until=until) == fits
        if row is None or not fits:
            return
        if until is None:
            row.reason, row.wake_at = f"reason {self.next_entry}", None
            row.record = replace(row.record, status="Paused", due_at=None)
        else:
            row.tries, row.wake_at = row.tries + 1, until
        row.claimed_by = None
        stored = store.get(*key)
        assert stored is not None
        row.revision = stored.revision  # a mark may change it, or not

    # -- due work ------------------------------------------------------------------------------------------------------

    @rule(
        handle=st.integers(0, 1), names=workflows, now=times, limit=st.integers(0, 4),
        process=st.sampled_from(["", *PROCESSES]),
    )  # fmt: skip
    def due(self, handle: int, names: list[str], now: datetime, limit: int, process: str) -> None:
        found = self.handles[handle].due(names, now=now, limit=limit, process=process)
        waiting = self.instants(names, lambda row: row.wake_at, now)
        assert [waiting[key] for key in found] == sorted(waiting.values())[:limit]
        assert len(set(found)) == len(found)
        if self.handles[handle].hands_out_once:
            for key in found:
                self.model[key].wake_at, self.model[key].claimed_by = now + HANDOUT, process or None

    @rule(handle=st.integers(0, 1), names=workflows, now=times, limit=st.integers(0, 4))
    def expired(self, handle: int, names: list[str], now: datetime, limit: int) -> None:
        found = self.handles[handle].expired(names, now=now, limit=limit)
        over = self.instants(names, lambda row: row.record.expires_at if row.record.status in ENDED else None, now)
        assert [over[key] for key in found] == sorted(over.values())[:limit]
        assert len(set(found)) == len(found)

    def instants(self, names: Sequence[str], at: Callable[[Row], datetime | None], now: datetime) -> dict[Key, datetime]:
        rows = {key: at(row) for key, row in self.model.items() if key.workflow in names}
        return {key: instant for key, instant in rows.items() if instant is not None and instant <= now}

    @rule(handle=st.integers(0, 1), names=workflows, before=times, live=st.booleans(), limit=st.integers(1, 3))
    def prune_history(self, handle: int, names: list[str], before: datetime, live: bool, limit: int) -> None:
        rows = {key: row for key, row in self.model.items() if key.workflow in names and (live or row.record.status in ENDED)}
        old = sum(at < before for row in rows.values() for at, _ in row.history)
        store = self.handles[handle]
        assert store.prune_history(names, before=before, live=live, limit=limit) == min(old, limit)
        while store.prune_history(names, before=before, live=live, limit=limit):
            pass  # which went first is the store's affair, so all go
        for row in rows.values():
            row.history = [write for write in row.history if write[0] >= before]

    # -- looking -------------------------------------------------------------------------------------------------------

    @rule(
        handle=st.integers(0, 1), names=st.none() | workflows,
        status=st.sampled_from([None, "Running", "Paused"]), text=st.sampled_from(FILTERS), size=st.integers(1, 5),
    )  # fmt: skip
    def list_all(self, handle: int, names: list[str] | None, status: str | None, text: str, size: int) -> None:
        store = self.handles[handle]
        if not served(store, text):
            with pytest.raises(Malformed):
                store.list(names, status=status, filter=text)
            return
        comparisons = parse_filter(text, store.filterable, "model")
        expected = [
            (row.record.created_at, key.id, key.workflow)
            for key, row in self.model.items()
            if (names is None or key.workflow in names)
            and (status is None or row.record.status == status)
            and matches(
                comparisons,
                status=row.record.status,
                created_at=row.record.created_at,
                updated_at=row.record.updated_at,
                labels=row.record.labels,
                state=row.record.state,
            )
        ]
        token, found = None, []
        while True:
            page = store.list(names, status=status, filter=text, page_size=size, page_token=token)
            found += [(item.created_at, item.id, item.workflow) for item in page.items]
            token = page.next_page_token
            if token is None:
                break
            assert len(page.items) == size
        assert found == sorted(expected, reverse=True)

    @rule(handle=st.integers(0, 1), key=keys, size=st.integers(1, 3))
    def history(self, handle: int, key: Key, size: int) -> None:
        row = self.model.get(key)
        token, found = None, []
        while True:
            page = self.handles[handle].history(*key, page_size=size, page_token=token)
            found += [entry["n"] for entry in page.entries]
            token = page.next_page_token
            if token is None:
                break
        assert found == ([] if row is None else [number for _, numbers in row.history for number in numbers])

    @rule(handle=st.integers(0, 1), names=workflows)
    def look_around(self, handle: int, names: list[str]) -> None:
        store = self.handles[handle]
        rows = {key: row for key, row in self.model.items() if key.workflow in names}
        assert store.next_due(names) == min((row.wake_at for row in rows.values() if row.wake_at), default=None)
        unfit = {key for key, row in rows.items() if row.record.unplaced or row.tries or row.reason is not None}
        assert sorted(store.unfit(names)) == sorted(unfit)
        held: dict[str, set[Key]] = {}
        for key, row in self.model.items():
            for process in {*row.record.holders, *([row.claimed_by] if row.claimed_by else [])}:
                held.setdefault(process, set()).add(key)
        if not store.finds_holders:
            held.clear()
        assert store.processes() == set(held)
        assert {process: sorted(store.held_by(process)) for process in held} == {
            process: sorted(found) for process, found in held.items()
        }

    @rule(handle=st.integers(0, 1), crash=st.booleans())
    def open_again(self, handle: int, crash: bool) -> None:
        if crash:
            self.left_lying.append(self.handles[handle])
        else:
            self.handles[handle].close()
        self.handles[handle] = self.open_handle()

    @invariant()
    @precondition(lambda self: self.model)
    def every_instance_is_as_it_was_saved(self) -> None:
        for key, row in self.model.items():
            stored = self.handles[ord(key.id) % 2].get(*key)
            assert stored is not None
            assert (stored.record, stored.revision) == (row.record, row.revision)
            assert (stored.reason, stored.tries) == (row.reason, row.tries)


class MemoryMachine(StoreMachine):
    def __init__(self) -> None:
        self.rows = MemoryRows()
        super().__init__()

    def open_handle(self) -> Store:
        return MemoryStore(self.rows)


class SqliteMachine(StoreMachine):
    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        super().__init__()

    def open_handle(self) -> Store:
        return SqliteStore(Path(self.folder.name) / "store.db")

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


# About 15 s for both stores in a plain run: SQLite flushes to the disk for each operation.
EXAMPLES = max(10, settings().max_examples // 4)

for machine in (MemoryMachine, SqliteMachine):
    machine.TestCase.settings = settings(settings(), max_examples=EXAMPLES, stateful_step_count=40)

TestMemory = pytest.mark.slow(MemoryMachine.TestCase)
TestSqlite = pytest.mark.slow(SqliteMachine.TestCase)
