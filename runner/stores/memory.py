"""A store in this process's memory: for tests and trials, with every promise that can be kept within one process."""

import threading
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from pydantic import JsonValue
from pydantic_core import from_json

from asyncflow import limits
from asyncflow.errors import AlreadyExists, AsyncflowError, Unavailable
from runner.stores.base import (
    ENDED,
    PAUSED,
    PRUNE_LIMIT,
    Conflict,
    Exists,
    Failed,
    HistoryPage,
    Key,
    Outcome,
    Outcomes,
    Page,
    Record,
    Revision,
    Saved,
    Store,
    Stored,
    Summary,
    Write,
)
from runner.stores.encoding import (
    check_process,
    check_record,
    encode_entries,
    micros,
    micros_or_none,
    moment,
    moment_or_none,
    utc_now,
)
from runner.stores.filters import matches, parse_filter
from runner.stores.pages import NUMBER, PLACE, Place, check_page_size, list_question, make_token, read_token

_HANDOUT: Final = timedelta(seconds=limits.DUE_HANDOUT_SECONDS)


@dataclass
class _Row:
    record: Record
    revision: int
    wake_at: datetime | None
    claimed_by: str | None = None
    reason: str | None = None
    tries: int = 0
    # Of each write with entries: their last `n`, when it was, their JSON.
    history: list[tuple[int, datetime, bytes]] = field(default_factory=list)


class MemoryRows:
    """What several handles share: the instances, and which processes live."""

    def __init__(self) -> None:
        self.lock: AbstractContextManager[object] = threading.RLock()
        self.rows: dict[Key, _Row] = {}
        self.living: set[str] = set()
        self.writes = 0


class MemoryStore(Store):
    """A handle on *rows*; closing it ends its processes and keeps the rows, as a crash would."""

    filterable = frozenset(("status", "created_at", "updated_at", "labels", "state"))
    hands_out_once = True
    knows_processes = True

    def __init__(self, rows: MemoryRows | None = None, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._shared = MemoryRows() if rows is None else rows
        self._clock = clock
        self._entered: set[str] = set()
        self._closed = False

    # -- writing and reading -------------------------------------------------------------------------------------------

    def commit(self, writes: Sequence[Write]) -> Outcomes:
        """See `Store.commit`."""
        if self._closed:
            return [Failed(_closed()) for _ in writes]
        with self._shared.lock:
            return [self._apply(write) for write in writes]

    def _apply(self, write: Write) -> Outcome:
        record = write.record
        try:
            check_record(record)
            record = _kept(record)
            entries = encode_entries(write.entries) if write.entries else None
        except AsyncflowError as error:
            return Failed(error)
        key = Key(record.workflow, record.id)
        row = self._shared.rows.get(key)
        if write.expected is None:
            if row is not None:
                return Exists()
            row = self._shared.rows[key] = _Row(record, 0, None)
        elif row is None or row.revision != write.expected:
            return Conflict()
        self._shared.writes += 1
        row.record = replace(record, uid=row.record.uid, created_at=row.record.created_at)
        row.revision = self._shared.writes
        row.wake_at = record.due_at
        row.claimed_by, row.reason, row.tries = None, None, 0
        if entries is not None:
            row.history.append((entries[0], record.updated_at, entries[1]))
        return Saved(row.revision)

    def get(self, workflow: str, id: str) -> Stored | None:
        """See `Store.get`."""
        with self._open():
            row = self._shared.rows.get(Key(workflow, id))
            return None if row is None else Stored(row.record, row.revision, row.reason, row.tries)

    def delete(self, workflow: str, id: str, expected: Revision) -> bool:
        """See `Store.delete`."""
        with self._open():
            if self._at(workflow, id, expected) is None:
                return False
            del self._shared.rows[Key(workflow, id)]
            self._shared.writes += 1
            return True

    def _at(self, workflow: str, id: str, expected: Revision) -> _Row | None:
        row = self._shared.rows.get(Key(workflow, id))
        return row if row is not None and row.revision == expected else None

    def _open(self) -> AbstractContextManager[object]:
        if self._closed:
            raise _closed()
        return self._shared.lock

    # -- looking around ------------------------------------------------------------------------------------------------

    def list(
        self,
        workflows: Sequence[str] | None = None,
        *,
        status: str | None = None,
        filter: str = "",
        page_size: int = limits.PAGE_SIZE,
        page_token: str | None = None,
    ) -> Page:
        """See `Store.list`."""
        check_page_size(page_size)
        question = list_question(workflows, status, filter)
        after = None if page_token is None else read_token(question, page_token, PLACE)
        comparisons = parse_filter(filter, self.filterable, "memory")
        with self._open():
            found = [
                (_place(row.record), row)
                for row in self._of(workflows)
                if (status is None or row.record.status == status)
                and (after is None or _place(row.record) < after)
                and matches(
                    comparisons,
                    status=row.record.status,
                    created_at=row.record.created_at,
                    updated_at=row.record.updated_at,
                    labels=row.record.labels,
                    state=row.record.state,
                )
            ]
        found.sort(key=lambda pair: pair[0], reverse=True)
        more = len(found) > page_size
        items = tuple(_summary(row) for _, row in found[:page_size])
        return Page(items, make_token(question, [*found[page_size - 1][0]]) if more else None)

    def history(self, workflow: str, id: str, *, page_size: int = limits.PAGE_SIZE, page_token: str | None = None) -> HistoryPage:
        """See `Store.history`."""
        check_page_size(page_size)
        question: JsonValue = [workflow, id]
        after = 0 if page_token is None else read_token(question, page_token, NUMBER)
        with self._open():
            row = self._shared.rows.get(Key(workflow, id))
            texts = [] if row is None else [text for last, _, text in row.history if last > after]
        entries = [entry for text in texts for entry in from_json(text) if entry["n"] > after]
        more = len(entries) > page_size
        return HistoryPage(tuple(entries[:page_size]), make_token(question, entries[page_size - 1]["n"]) if more else None)

    def _of(self, workflows: Collection[str] | None) -> Iterable[_Row]:
        rows = self._shared.rows.values()
        return rows if workflows is None else [row for row in rows if row.record.workflow in workflows]

    # -- due work ------------------------------------------------------------------------------------------------------

    def due(self, workflows: Collection[str], *, now: datetime, limit: int, process: str = "") -> Sequence[Key]:
        """See `Store.due`."""
        with self._open():
            found = self._by_time(workflows, lambda row: row.wake_at, now)[:limit]
            for key in found:
                row = self._shared.rows[key]
                row.wake_at, row.claimed_by = moment(micros(now)) + _HANDOUT, process or None
            return found

    def next_due(self, workflows: Collection[str]) -> datetime | None:
        """See `Store.next_due`."""
        with self._open():
            return min((row.wake_at for row in self._of(workflows) if row.wake_at is not None), default=None)

    def park(self, workflow: str, id: str, expected: Revision, reason: str) -> bool:
        """See `Store.park`."""
        with self._open():
            row = self._at(workflow, id, expected)
            if row is None:
                return False
            row.record = replace(row.record, status=PAUSED, due_at=None)
            row.wake_at, row.reason, row.claimed_by = None, reason, None
            self._shared.writes += 1
            return True

    def defer(self, workflow: str, id: str, expected: Revision, *, until: datetime) -> bool:
        """See `Store.defer`."""
        with self._open():
            row = self._at(workflow, id, expected)
            if row is None:
                return False
            row.wake_at, row.claimed_by = moment(micros(until)), None
            row.tries += 1
            self._shared.writes += 1
            return True

    def unfit(self, workflows: Collection[str]) -> Sequence[Key]:
        """See `Store.unfit`."""
        with self._open():
            rows = [row for row in self._of(workflows) if row.record.unplaced or row.tries or row.reason is not None]
            return sorted(_key(row) for row in rows)

    # -- processes -----------------------------------------------------------------------------------------------------

    def enter(self, process: str) -> None:
        """See `Store.enter`."""
        check_process(process)
        with self._open():
            if process in self._shared.living:
                raise AlreadyExists(f"a living process is named {process!r}: take another, random name")
            self._shared.living.add(process)
            self._entered.add(process)

    def dead(self, processes: Collection[str]) -> set[str]:
        """See `Store.dead`."""
        with self._open():
            return set(processes) - self._shared.living

    def processes(self) -> set[str]:
        """See `Store.processes`."""
        with self._open():
            rows = self._shared.rows.values()
            return {name for row in rows for name in (row.claimed_by, *row.record.holders) if name}

    def held_by(self, process: str) -> Sequence[Key]:
        """See `Store.held_by`."""
        with self._open():
            rows = self._shared.rows.values()
            return sorted(_key(row) for row in rows if process in row.record.holders or process == row.claimed_by)

    # -- retention -----------------------------------------------------------------------------------------------------

    def expired(self, workflows: Collection[str], *, now: datetime, limit: int) -> Sequence[Key]:
        """See `Store.expired`."""
        with self._open():
            return self._by_time(workflows, _expiry, now)[:limit]

    def prune_history(self, workflows: Collection[str], *, before: datetime, live: bool = False, limit: int = PRUNE_LIMIT) -> int:
        """See `Store.prune_history`."""
        pruned = 0
        with self._open():
            for row in self._of(workflows):
                if live or row.record.status in ENDED:
                    old = [place for place, write in enumerate(row.history) if write[1] < before][: limit - pruned]
                    row.history = [write for place, write in enumerate(row.history) if place not in set(old)]
                    pruned += len(old)
        return pruned

    def _by_time(self, workflows: Collection[str], at: Callable[[_Row], datetime | None], now: datetime) -> Sequence[Key]:
        """Return the keys of rows whose instant *at* has come, the earliest first."""
        pairs = [(at(row), _key(row)) for row in self._of(workflows)]
        return [key for _, key in sorted((instant, key) for instant, key in pairs if instant and instant <= now)]

    # -- the handle ----------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """See `Store.now`."""
        return self._clock()

    def changed(self) -> Hashable:
        """See `Store.changed`."""
        with self._open():
            return self._shared.writes

    def close(self) -> None:
        """See `Store.close`."""
        with self._shared.lock:
            self._closed = True
            self._shared.living -= self._entered
            self._entered.clear()


def _closed() -> Unavailable:
    return Unavailable("the store is closed")


def _key(row: _Row) -> Key:
    return Key(row.record.workflow, row.record.id)


def _place(record: Record) -> Place:
    return micros(record.created_at), record.id, record.workflow


def _expiry(row: _Row) -> datetime | None:
    return row.record.expires_at if row.record.status in ENDED else None


def _summary(row: _Row) -> Summary:
    record = row.record
    return Summary(
        workflow=record.workflow,
        id=record.id,
        status=record.status,
        document=record.document,
        created_at=record.created_at,
        updated_at=record.updated_at,
        labels=record.labels,
        reason=row.reason,
    )


def _kept(record: Record) -> Record:
    """Return *record* as a store on a disk would give it back: times in UTC, labels that nobody else can change."""
    return replace(
        record,
        created_at=moment(micros(record.created_at)),
        updated_at=moment(micros(record.updated_at)),
        due_at=moment_or_none(micros_or_none(record.due_at)),
        expires_at=moment_or_none(micros_or_none(record.expires_at)),
        labels=dict(record.labels),
    )
