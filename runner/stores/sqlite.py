"""The SQLite store: one file, many processes of one host, every acknowledged save on the disk."""

from collections.abc import Callable, Collection, Hashable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import apsw
from pydantic import JsonValue
from pydantic_core import from_json, to_json

from asyncflow import limits
from asyncflow.errors import Malformed, Unavailable
from runner.stores.base import (
    ENDED,
    PAUSED,
    PRUNE_LIMIT,
    Failed,
    HistoryPage,
    Key,
    Outcomes,
    Page,
    Record,
    Revision,
    Store,
    Stored,
    Summary,
    Write,
)
from runner.stores.encoding import micros, moment, moment_or_none, utc_now
from runner.stores.filters import parse_filter
from runner.stores.locks import ProcessLocks
from runner.stores.pages import NUMBER, PLACE, check_page_size, list_question, make_token, read_token
from runner.stores.sqlite_errors import ROW_FAULTS
from runner.stores.sqlite_file import BUSY_SECONDS, IN_DOUBT, SqliteFile
from runner.stores.sqlite_rows import (
    OneByOne,
    PreparedWrite,
    SqliteRevision,
    apply,
    apply_together,
    delete_row,
    prepare,
    read_labels,
)
from runner.stores.sqlite_search import page_query

_HANDOUT: Final = limits.DUE_HANDOUT_SECONDS * 1_000_000

_GET: Final = """
SELECT seq, revision, uid, rev, status, document, state, created_at, updated_at, due_at, expires_at, labels, holders,
    unplaced, reason, tries
FROM instances WHERE workflow = ? AND id = ?"""
_WORKFLOWS: Final = """
WITH RECURSIVE names (name) AS (
    SELECT min(workflow) FROM instances
    UNION ALL SELECT (SELECT min(workflow) FROM instances WHERE workflow > name) FROM names WHERE name IS NOT NULL
) SELECT name FROM names WHERE name IS NOT NULL"""
_CLAIM: Final = "UPDATE instances SET wake_at = ?, claimed_by = ? WHERE seq = ? AND wake_at = ?"
_PARK: Final = """
UPDATE instances SET status = ?, due_at = NULL, wake_at = NULL, claimed_by = NULL, reason = ?, unfit = 1
WHERE seq = ? AND revision = ? AND workflow = ? AND id = ?"""
_DEFER: Final = """
UPDATE instances SET wake_at = ?, claimed_by = NULL, tries = tries + 1, unfit = 1
WHERE seq = ? AND revision = ? AND workflow = ? AND id = ?"""
_HELD_BY: Final = """
SELECT workflow, id FROM instances WHERE claimed_by = ?1
UNION ALL SELECT i.workflow, i.id FROM holders h CROSS JOIN instances i ON i.seq = h.seq WHERE h.process = ?1"""
_PROCESSES: Final = """
SELECT DISTINCT process FROM holders UNION SELECT DISTINCT claimed_by FROM instances WHERE claimed_by IS NOT NULL"""
_PRUNABLE: Final = """
SELECT h.rowid FROM history h CROSS JOIN instances i ON i.seq = h.seq
WHERE h.at < ? AND i.workflow IN (SELECT value FROM json_each(?))
    AND (? OR i.status IN (SELECT value FROM json_each(?)))
ORDER BY h.at LIMIT ?"""


class SqliteStore(Store):
    """A handle on the file at *path*, which is made if it is missing; `Unavailable` says why it cannot be used.

    Args:
        path: Of the database. Beside it come its log (`-wal`, `-shm`) and the folder of the processes' locks.
        clock: What `now` answers: the host's clock unless a test says otherwise.
        busy_seconds: How long to wait for a lock of another process before a call is `Unavailable`.
        vfs: The SQLite VFS to use, for tests of failing disks.
    """

    filterable = frozenset(("status", "created_at", "updated_at", "labels", "state"))
    hands_out_once = True
    knows_processes = True

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Callable[[], datetime] = utc_now,
        busy_seconds: float = BUSY_SECONDS,
        vfs: str = "",
    ) -> None:
        self._file = SqliteFile(Path(path), busy_seconds=busy_seconds, vfs=vfs)
        self._locks = ProcessLocks(self._file.path.with_name(self._file.path.name + "-locks"))
        self._clock = clock

    # -- writing and reading -------------------------------------------------------------------------------------------

    def commit(self, writes: Sequence[Write]) -> Outcomes:
        """See `Store.commit`. One transaction and one flush for all of *writes*."""
        prepared = [prepare(write) for write in writes]
        rows = [row for row in prepared if isinstance(row, PreparedWrite)]
        outcomes = iter(self._commit_rows(rows) if rows else ())
        return [next(outcomes) if isinstance(row, PreparedWrite) else row for row in prepared]

    def _commit_rows(self, rows: list[PreparedWrite]) -> Outcomes:
        try:
            if len(rows) > 1:
                try:
                    return self._file.transact(lambda connection: apply_together(connection, rows))
                except OneByOne:
                    pass  # nothing was stored
            return self._file.transact(lambda connection: [apply(connection, row) for row in rows])
        except Unavailable as error:
            in_doubt = error.details == IN_DOUBT
            if in_doubt or not isinstance(error.__cause__, ROW_FAULTS):
                return [Failed(error, in_doubt)] * len(rows)
            fault: BaseException = error.__cause__
        except ROW_FAULTS as error:
            fault = error
        if len(rows) > 1:
            # One of them is at fault, and nothing was stored: each by itself, so that it stops no other.
            return [self._commit_rows([row])[0] for row in rows]
        return [Failed(Malformed(f"the record cannot be stored: {fault}"))]

    def get(self, workflow: str, id: str) -> Stored | None:
        """See `Store.get`."""
        found = self._file.read(_GET, (workflow, id))
        if not found:
            return None
        seq, number, uid, rev, status, document, state, created, updated, due, expires, labels, holders, *rest = found[0]
        unplaced, reason, tries = rest
        record = Record(
            workflow=workflow,
            id=id,
            uid=uid,
            rev=rev,
            status=status,
            document=document,
            state=state,
            created_at=moment(created),
            updated_at=moment(updated),
            due_at=moment_or_none(due),
            expires_at=moment_or_none(expires),
            labels=read_labels(labels),
            holders=frozenset(holders.split()),
            unplaced=bool(unplaced),
        )
        return Stored(record, SqliteRevision(seq, number, labels, holders), reason, tries)

    def delete(self, workflow: str, id: str, expected: Revision) -> bool:
        """See `Store.delete`."""
        return self._change_row(delete_row, (workflow, id), expected)

    def _change_row(
        self,
        change: Callable[[apsw.Connection, SqliteRevision, tuple[str, str]], bool],
        key: tuple[str, str],
        expected: Revision,
    ) -> bool:
        if not isinstance(expected, SqliteRevision):
            return False
        return self._file.transact(lambda connection: change(connection, expected, key))

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
        """See `Store.list`. Each workflow is asked for a page by its index; the newest of these are the page."""
        check_page_size(page_size)
        question = list_question(workflows, status, filter)
        after = None if page_token is None else read_token(question, page_token, PLACE)
        comparisons = parse_filter(filter, self.filterable, "SQLite")
        names = [name for (name,) in self._file.read(_WORKFLOWS)] if workflows is None else set(workflows)
        rows: list[Any] = []
        for name in names:
            rows += self._file.read(*page_query(name, status, comparisons, after, page_size + 1))
        rows.sort(key=lambda row: row[:3], reverse=True)
        more = len(rows) > page_size
        del rows[page_size:]
        return Page(tuple(map(_summary, rows)), make_token(question, [*rows[-1][:3]]) if more else None)

    def history(self, workflow: str, id: str, *, page_size: int = limits.PAGE_SIZE, page_token: str | None = None) -> HistoryPage:
        """See `Store.history`."""
        check_page_size(page_size)
        question: JsonValue = [workflow, id]
        after = 0 if page_token is None else read_token(question, page_token, NUMBER)
        texts = self._file.read(
            "SELECT h.entries FROM instances i CROSS JOIN history h ON h.seq = i.seq"
            " WHERE i.workflow = ? AND i.id = ? AND h.last > ? ORDER BY h.last LIMIT ?",
            (workflow, id, after, page_size + 1),
        )
        entries = [entry for (text,) in texts for entry in from_json(text) if entry["n"] > after]
        more = len(entries) > page_size
        del entries[page_size:]
        return HistoryPage(tuple(entries), make_token(question, entries[-1]["n"]) if more else None)

    # -- due work ------------------------------------------------------------------------------------------------------

    def due(self, workflows: Collection[str], *, now: datetime, limit: int, process: str = "") -> Sequence[Key]:
        """See `Store.due`. The claim is not flushed: what a crash of the machine takes of it is only due earlier."""
        found = self._earliest(
            "SELECT wake_at, workflow, id, seq FROM instances WHERE workflow = ? AND wake_at <= ? ORDER BY wake_at LIMIT ?",
            workflows,
            micros(now),
            limit,
        )
        if not found:
            return []

        def claim(connection: apsw.Connection) -> Sequence[Key]:
            claimed = []
            for wake_at, workflow, id_, seq in found:
                connection.execute(_CLAIM, (until, process or None, seq, wake_at))
                if connection.changes():
                    claimed.append(Key(workflow, id_))
            return claimed

        until = micros(now) + _HANDOUT
        return self._file.transact(claim, durable=False)

    def next_due(self, workflows: Collection[str]) -> datetime | None:
        """See `Store.next_due`."""
        # Not min(): over a partial index it looks at every row.
        query = "SELECT wake_at FROM instances WHERE workflow = ? AND wake_at IS NOT NULL ORDER BY wake_at LIMIT 1"
        found = [row[0] for workflow in set(workflows) for row in self._file.read(query, (workflow,))]
        return moment_or_none(min(found, default=None))

    def park(self, workflow: str, id: str, expected: Revision, reason: str) -> bool:
        """See `Store.park`."""

        def mark(connection: apsw.Connection, at: SqliteRevision, key: tuple[str, str]) -> bool:
            connection.execute(_PARK, (PAUSED, reason, at.seq, at.number, *key))
            return connection.changes() == 1

        return self._change_row(mark, (workflow, id), expected)

    def defer(self, workflow: str, id: str, expected: Revision, *, until: datetime) -> bool:
        """See `Store.defer`."""
        wake_at = micros(until)

        def mark(connection: apsw.Connection, at: SqliteRevision, key: tuple[str, str]) -> bool:
            connection.execute(_DEFER, (wake_at, at.seq, at.number, *key))
            return connection.changes() == 1

        return self._change_row(mark, (workflow, id), expected)

    def unfit(self, workflows: Collection[str]) -> Sequence[Key]:
        """See `Store.unfit`."""
        query = "SELECT workflow, id FROM instances WHERE workflow = ? AND unfit = 1"
        return sorted(Key(*row) for name in set(workflows) for row in self._file.read(query, (name,)))

    def _earliest(self, query: str, workflows: Collection[str], until: int, limit: int) -> Sequence[tuple[int, str, str, int]]:
        """Return the first *limit* rows (time, workflow, id, seq) of a *query* that is asked for each workflow."""
        if limit <= 0:
            return []
        rows = [row for name in set(workflows) for row in self._file.read(query, (name, until, limit))]
        return sorted(rows)[:limit]

    # -- processes -----------------------------------------------------------------------------------------------------

    def enter(self, process: str) -> None:
        """See `Store.enter`. The lock is on a file in a folder beside the database."""
        self._file.check_open()
        self._locks.enter(process)

    def dead(self, processes: Collection[str]) -> set[str]:
        """See `Store.dead`."""
        self._file.check_open()
        return self._locks.dead(processes)

    def processes(self) -> set[str]:
        """See `Store.processes`."""
        return {name for (name,) in self._file.read(_PROCESSES)}

    def held_by(self, process: str) -> Sequence[Key]:
        """See `Store.held_by`."""
        return sorted({Key(*row) for row in self._file.read(_HELD_BY, (process,))})

    # -- retention -----------------------------------------------------------------------------------------------------

    def expired(self, workflows: Collection[str], *, now: datetime, limit: int) -> Sequence[Key]:
        """See `Store.expired`."""
        ended = ", ".join(f"'{status}'" for status in ENDED)
        found = self._earliest(
            "SELECT expires_at, workflow, id, seq FROM instances"
            f" WHERE workflow = ? AND expires_at <= ? AND status IN ({ended}) ORDER BY expires_at LIMIT ?",
            workflows,
            micros(now),
            limit,
        )
        return [Key(workflow, id_) for _, workflow, id_, _ in found]

    def prune_history(self, workflows: Collection[str], *, before: datetime, live: bool = False, limit: int = PRUNE_LIMIT) -> int:
        """See `Store.prune_history`."""
        bindings = (micros(before), to_json(sorted(set(workflows))).decode(), live, to_json(ENDED).decode(), limit)

        def prune(connection: apsw.Connection) -> int:
            rows = connection.execute(_PRUNABLE, bindings).fetchall()
            connection.executemany("DELETE FROM history WHERE rowid = ?", rows)
            return len(rows)

        return self._file.transact(prune)

    # -- the handle ----------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """See `Store.now`."""
        return self._clock()

    def changed(self) -> Hashable:
        """See `Store.changed`."""
        return self._file.data_version()

    def close(self) -> None:
        """See `Store.close`."""
        self._locks.leave()
        self._file.close()


def _summary(row: tuple[Any, ...]) -> Summary:
    created, id_, workflow, status, updated, reason, labels, document = row
    return Summary(
        workflow=workflow,
        id=id_,
        status=status,
        document=document,
        created_at=moment(created),
        updated_at=moment(updated),
        labels=read_labels(labels),
        reason=reason,
    )
