"""How a record becomes rows of the tables and goes away again: what happens inside a transaction for one write."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

import apsw
from pydantic_core import from_json, to_json

from asyncflow.errors import AsyncflowError, Malformed
from runner.stores.base import Conflict, Exists, Failed, Label, Outcome, Revision, Saved, Write
from runner.stores.encoding import check_record, encode_entries, micros, micros_or_none
from runner.stores.sqlite_errors import ROW_FAULTS
from runner.stores.sqlite_schema import ColumnValue
from runner.stores.sqlite_search import indexed

T = TypeVar("T")

_CONFLICT: Final = Conflict()
_EXISTS: Final = Exists()
_INSERT: Final = """
INSERT INTO instances (status, updated_at, due_at, wake_at, expires_at, unplaced, unfit, rev, holders, labels, document,
    state, workflow, id, uid, created_at, revision, tries)
VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 1, 0)
ON CONFLICT DO NOTHING"""
_UPDATE: Final = """
UPDATE instances SET status = ?1, updated_at = ?2, due_at = ?3, wake_at = ?3, expires_at = ?4, unplaced = ?5,
    unfit = ?5, rev = ?6, holders = ?7, labels = ?8, document = ?9, state = ?10, revision = revision + 1,
    claimed_by = NULL, reason = NULL, tries = 0
WHERE seq = ?13 AND revision = ?14 AND workflow = ?11 AND id = ?12"""
_UPDATE_MANY: Final = """
UPDATE instances SET status = n.column1, updated_at = n.column2, due_at = n.column3, wake_at = n.column3,
    expires_at = n.column4, unplaced = n.column5, unfit = n.column5, rev = n.column6, document = n.column7,
    state = n.column8, revision = revision + 1, claimed_by = NULL, reason = NULL, tries = 0
FROM (VALUES {rows}) AS n
WHERE instances.seq = n.column11 AND instances.revision = n.column12 AND instances.workflow = n.column9
    AND instances.id = n.column10"""
_HISTORY: Final = "INSERT INTO history (seq, last, at, entries) VALUES {rows}"

ROWS_PER_STATEMENT: Final = 32
"""How many rows one statement changes at most. Each statement gives up the interpreter and has to get it back from a busy event
loop, which takes longer than the statement: one for many rows makes a commit beside other threads several times faster."""


def _statements(form: str, columns: int) -> dict[int, str]:
    """One statement for each power of two, so that few are ever prepared."""
    row = f"({', '.join('?' * columns)})"
    sizes = [2**power for power in range(ROWS_PER_STATEMENT.bit_length())]
    return {size: form.format(rows=", ".join([row] * size)) for size in sizes}


_UPDATES: Final = _statements(_UPDATE_MANY, 12)
_HISTORIES: Final = _statements(_HISTORY, 4)


class OneByOne(Exception):
    """A save among several has met a conflict: which one shows when each has a statement of its own."""


class SqliteRevision(NamedTuple):
    """A row and how often it was saved; what it has in the side tables, so that a save knows what to change there."""

    seq: int
    number: int
    labels: bytes
    holders: str


@dataclass(frozen=True, slots=True)
class PreparedWrite:
    """A write in the form of the tables."""

    columns: tuple[ColumnValue, ...]
    uid: str
    created_at: int
    updated_at: int
    labels: bytes
    holders: str
    expected: SqliteRevision | None
    entries: tuple[int, bytes] | None


def prepare(write: Write) -> PreparedWrite | Failed:
    """Do what needs no database, before its lock is taken."""
    record, expected = write.record, write.expected
    if expected is not None and not isinstance(expected, SqliteRevision):
        return Failed(Malformed(f"{record.workflow}/{record.id}: {expected!r} is no revision of this store"))
    try:
        check_record(record)
        updated_at = micros(record.updated_at)
        labels = to_json(dict(record.labels)) if record.labels else b"{}"
        holders = " ".join(sorted(record.holders))
        columns = (
            record.status,
            updated_at,
            micros_or_none(record.due_at),
            micros_or_none(record.expires_at),
            record.unplaced,
            record.rev,
            holders,
            labels,
            record.document,
            record.state,
            record.workflow,
            record.id,
        )
        entries = encode_entries(write.entries) if write.entries else None
        return PreparedWrite(columns, record.uid, micros(record.created_at), updated_at, labels, holders, expected, entries)
    except AsyncflowError as error:
        return Failed(error)
    except ROW_FAULTS as error:
        return Failed(Malformed(f"{record.workflow}/{record.id} cannot be stored: {error}"))


def apply_together(connection: apsw.Connection, rows: Sequence[PreparedWrite]) -> list[Outcome]:
    """Store all of *rows* in few statements.

    Raises:
        OneByOne: One of them conflicts, or two are of one instance: roll back, and `apply` each.
    """
    seqs = [row.expected.seq for row in rows if row.expected is not None]
    if len(set(seqs)) < len(seqs):
        raise OneByOne
    outcomes: list[Outcome | None] = [None] * len(rows)
    alike: list[tuple[int, PreparedWrite, SqliteRevision]] = []
    history: list[tuple[ColumnValue, ...]] = []
    for place, row in enumerate(rows):
        expected = row.expected
        if expected is not None and row.labels == expected.labels and row.holders == expected.holders:
            alike.append((place, row, expected))
        else:
            outcomes[place] = outcome = _apply_row(connection, row)
            if isinstance(outcome, Conflict):
                raise OneByOne
            if isinstance(outcome, Saved):
                _note_history(history, row, outcome.revision)
    for some in _in_powers(alike):
        values = [value for _, row, at in some for value in (*row.columns[:6], *row.columns[8:], at.seq, at.number)]
        connection.execute(_UPDATES[len(some)], values)
        if connection.changes() != len(some):
            raise OneByOne
    for place, row, at in alike:
        outcomes[place] = outcome = Saved(at._replace(number=at.number + 1))
        _note_history(history, row, outcome.revision)
    for entries in _in_powers(history):
        connection.execute(_HISTORIES[len(entries)], [value for entry in entries for value in entry])
    return [outcome for outcome in outcomes if outcome is not None]


def _in_powers(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut *rows* into pieces whose lengths are powers of two."""
    begin = 0
    while begin < len(rows):
        size = min(1 << ((len(rows) - begin).bit_length() - 1), ROWS_PER_STATEMENT)
        yield rows[begin : begin + size]
        begin += size


def _note_history(history: list[tuple[ColumnValue, ...]], row: PreparedWrite, revision: Revision) -> None:
    if row.entries is not None:
        assert isinstance(revision, SqliteRevision)
        history.append((revision.seq, row.entries[0], row.updated_at, row.entries[1]))


def apply(connection: apsw.Connection, row: PreparedWrite) -> Outcome:
    """Store one write, or nothing of it if its revision has gone or its key is taken."""
    outcome = _apply_row(connection, row)
    if isinstance(outcome, Saved):
        history: list[tuple[ColumnValue, ...]] = []
        _note_history(history, row, outcome.revision)
        for entry in history:
            connection.execute(_HISTORIES[1], entry)
    return outcome


def _apply_row(connection: apsw.Connection, row: PreparedWrite) -> Outcome:
    expected = row.expected
    if expected is None:
        connection.execute(_INSERT, (*row.columns, row.uid, row.created_at))
        if not connection.changes():
            return _EXISTS
        expected = SqliteRevision(connection.last_insert_rowid(), 0, b"{}", "")
    else:
        connection.execute(_UPDATE, (*row.columns, expected.seq, expected.number))
        if not connection.changes():
            return _CONFLICT
    if row.labels != expected.labels:
        _change_labels(connection, expected, row)
    if row.holders != expected.holders:
        _change_holders(connection, expected, row.holders)
    return Saved(SqliteRevision(expected.seq, expected.number + 1, row.labels, row.holders))


def _change_labels(connection: apsw.Connection, expected: SqliteRevision, row: PreparedWrite) -> None:
    query = "SELECT workflow, id, created_at FROM instances WHERE seq = ?"
    workflow, id_, created_at = connection.execute(query, (expected.seq,)).get
    _drop_labels(connection, workflow, id_, created_at, expected.labels)
    connection.executemany(
        "INSERT INTO labels (workflow, name, value, created_at, id, seq) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (workflow, name, indexed(value), created_at, id_, expected.seq)
            for name, value in read_labels(row.labels).items()
            if value is not None
        ],
    )


def _drop_labels(connection: apsw.Connection, workflow: str, id_: str, created_at: int, labels: bytes) -> None:
    connection.executemany(
        "DELETE FROM labels WHERE workflow = ? AND name = ? AND value = ? AND created_at = ? AND id = ?",
        [(workflow, name, indexed(value), created_at, id_) for name, value in read_labels(labels).items() if value is not None],
    )


def _change_holders(connection: apsw.Connection, expected: SqliteRevision, holders: str) -> None:
    before, now = set(expected.holders.split()), set(holders.split())
    for process in before - now:
        connection.execute("DELETE FROM holders WHERE process = ? AND seq = ?", (process, expected.seq))
    for process in now - before:
        connection.execute("INSERT INTO holders (process, seq) VALUES (?, ?)", (process, expected.seq))


def delete_row(connection: apsw.Connection, at: SqliteRevision, key: tuple[str, str]) -> bool:
    """Delete the instance and all that belongs to it; False if that revision has gone."""
    created_at = connection.execute(
        "DELETE FROM instances WHERE seq = ? AND revision = ? AND workflow = ? AND id = ? RETURNING created_at",
        (at.seq, at.number, *key),
    ).get
    if created_at is None:
        return False
    _drop_labels(connection, *key, created_at, at.labels)
    _change_holders(connection, at, "")
    connection.execute("DELETE FROM history WHERE seq = ?", (at.seq,))
    return True


def read_labels(text: bytes) -> Mapping[str, Label]:
    """Return the labels that `prepare` wrote."""
    labels: Mapping[str, Label] = {} if text == b"{}" else from_json(text)
    return labels
