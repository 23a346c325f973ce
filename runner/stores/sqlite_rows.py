"""How a record becomes rows of the tables and goes away again: what happens inside a transaction for one write."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import apsw
from pydantic_core import from_json, to_json

from asyncflow.errors import AsyncflowError, Malformed
from runner.stores.base import Conflict, Exists, Failed, Label, Outcome, Saved, Write
from runner.stores.encoding import check_record, encode_entries, micros, micros_or_none
from runner.stores.sqlite_errors import ROW_FAULTS
from runner.stores.sqlite_schema import ColumnValue
from runner.stores.sqlite_search import indexed

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
_HISTORY: Final = "INSERT INTO history (seq, last, at, entries) VALUES (?, ?, ?, ?)"


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


def apply(connection: apsw.Connection, row: PreparedWrite) -> Outcome:
    """Store one write, or nothing of it if its revision has gone or its key is taken."""
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
    if row.entries is not None:
        last, text = row.entries
        connection.execute(_HISTORY, (expected.seq, last, row.updated_at, text))
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
