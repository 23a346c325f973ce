"""How records become rows of the tables and go away again: one statement for a whole batch.

What is small goes as one JSON text for all rows, what is large as arrays of bytes beside it: the statement stays the same
whatever is in a batch, so it is planned once for each connection, and one round trip stores everything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from struct import pack
from typing import Any, Final, NamedTuple

from psycopg.pq import Format
from psycopg.pq.abc import PGresult
from pydantic_core import PydanticSerializationError, from_json, to_json

from asyncflow.errors import AsyncflowError, Malformed
from runner.stores.base import Conflict, Exists, Failed, Label, Outcome, Record, Saved, Stored, Write
from runner.stores.encoding import check_record, encode_entries, micros, micros_or_none, moment, moment_or_none
from runner.stores.filters import Value
from runner.stores.postgres_exchange import Statement, integer, integer_or_none

_CONFLICT: Final = Conflict()
_EXISTS: Final = Exists()
# A longer text would not fit a line of the index of labels with the names beside it; its hash is as good for `=`.
_TERM_CHARACTERS: Final = 200

# The types of parameters, as Postgres numbers them.
_JSON, _BYTEA, _BYTEAS, _TEXT, _TEXTS = 114, 17, 1001, 25, 1009

# w: what is to be written. `seq` null creates; `fresh`: the state is another one, else it is not sent and stays.
_WRITES: Final = """
WITH w AS MATERIALIZED (
    SELECT * FROM ROWS FROM (
        json_to_recordset($1::json) AS (n integer, workflow text, id text, seq bigint, expected bigint, status text,
            updated_at bigint, due_at bigint, expires_at bigint, unplaced boolean, rev bigint, holders text[], labels json,
            uid text, created_at bigint, last bigint, fresh boolean, gone json, come json),
        unnest($2::bytea[]), unnest($3::bytea[]), unnest($4::text[])
    ) AS w (n, workflow, id, seq, expected, status, updated_at, due_at, expires_at, unplaced, rev, holders, labels, uid,
        created_at, last, fresh, gone, come, document, state, entries)
)"""
_CREATED: Final = """
made AS (
    INSERT INTO instances (workflow, id, revision, status, created_at, updated_at, due_at, wake_at, expires_at, unplaced,
        unfit, tries, uid, rev, holders, labels, document, state, state_json)
    SELECT workflow, id, 1, status, created_at, updated_at, due_at, due_at, expires_at, unplaced, unplaced, 0, uid, rev,
        holders, labels, document, state, searchable(state)
    FROM w WHERE seq IS NULL
    ON CONFLICT (workflow, id) DO NOTHING
    RETURNING seq, workflow, id, created_at
)"""
_SAVED: Final = """
saved AS (
    UPDATE instances i SET status = w.status, updated_at = w.updated_at, due_at = w.due_at, wake_at = w.due_at,
        expires_at = w.expires_at, unplaced = w.unplaced, unfit = w.unplaced, rev = w.rev, holders = w.holders,
        labels = w.labels, document = w.document, revision = i.revision + 1, claimed_by = NULL, reason = NULL, tries = 0,
        state = CASE WHEN w.fresh THEN w.state ELSE i.state END,
        state_json = CASE WHEN w.fresh THEN searchable(w.state) ELSE i.state_json END
    FROM w WHERE i.seq = w.seq AND i.revision = w.expected AND i.workflow = w.workflow AND i.id = w.id
    RETURNING w.n, i.seq, i.created_at, w.last, w.updated_at AS at, w.entries
)"""
_DONE: Final = """
done AS (
    SELECT n, seq, created_at, last, at, entries FROM saved
    UNION ALL SELECT w.n, made.seq, made.created_at, w.last, w.updated_at, w.entries FROM made JOIN w USING (workflow, id)
)"""
_LABELLED: Final = """
unlabelled AS (
    DELETE FROM labels l USING w, done, json_to_recordset(w.gone) AS gone (name text, term text)
    WHERE done.n = w.n AND l.seq = done.seq AND l.name = gone.name AND l.term = gone.term
),
labelled AS (
    INSERT INTO labels (workflow, name, term, created_at, id, seq)
    SELECT w.workflow, come.name, come.term, done.created_at, w.id, done.seq
    FROM w JOIN done USING (n), json_to_recordset(w.come) AS come (name text, term text)
)"""
_TOLD: Final = """
told AS (
    INSERT INTO history (seq, last, at, entries)
    SELECT seq, last, at, entries::json FROM done WHERE last IS NOT NULL
)"""
_ANSWER: Final = "SELECT n, seq FROM done"

_TYPES: Final = (_JSON, _BYTEAS, _BYTEAS, _TEXTS), (Format.TEXT, Format.BINARY, Format.BINARY, Format.BINARY)
# Most batches only save, and change no label: what is not needed would cost as much as two rows.
SAVES: Final = Statement(
    b"asyncflow_commit_saves", f"{_WRITES},{_SAVED},{_TOLD.replace('done', 'saved')}\nSELECT n, seq FROM saved", *_TYPES
)
COMMIT: Final = Statement(b"asyncflow_commit", f"{_WRITES},{_CREATED},{_SAVED},{_DONE},{_TOLD}\n{_ANSWER}", *_TYPES)
COMMIT_WITH_LABELS: Final = Statement(
    b"asyncflow_commit_labels", f"{_WRITES},{_CREATED},{_SAVED},{_DONE},{_LABELLED},{_TOLD}\n{_ANSWER}", *_TYPES
)

DELETE: Final = """
WITH gone AS (
    DELETE FROM instances WHERE seq = $1::bigint AND revision = $2::bigint AND workflow = $3::text AND id = $4::text RETURNING seq
),
unlabelled AS (DELETE FROM labels USING gone WHERE labels.seq = gone.seq),
forgotten AS (DELETE FROM history USING gone WHERE history.seq = gone.seq)
SELECT seq FROM gone"""


class PostgresRevision(NamedTuple):
    """A row and how often it was saved; its labels and its state, so that a save knows what has changed."""

    seq: int
    number: int
    labels: bytes
    state: bytes


@dataclass(frozen=True, slots=True)
class PreparedWrite:
    """A write in the form of the statement; `columns` is the JSON of the small ones, without the number in the batch."""

    key: tuple[str, str]
    columns: bytes
    expected: PostgresRevision | None
    labels: bytes
    labelled: bool
    document: bytes
    state: bytes
    fresh: bool
    entries: bytes
    due_at: int | None

    def at(self, number: int) -> bytes:
        """Return the row's small columns as JSON."""
        return b'{"n":%d,%b' % (number, self.columns[1:])


def prepare(write: Write) -> PreparedWrite | Failed:
    """Do what needs no server, and find out what no server could store."""
    record, expected = write.record, write.expected
    if expected is not None and not isinstance(expected, PostgresRevision):
        return Failed(Malformed(f"{record.workflow}/{record.id}: {expected!r} is no revision of this store"))
    try:
        check_record(record)
        labels = to_json(_stored(record.labels)) if record.labels else b"{}"
        before = b"{}" if expected is None else expected.labels
        due_at = micros_or_none(record.due_at)
        columns: dict[str, Any] = {
            "workflow": to_text(record.workflow),
            "id": to_text(record.id),
            "status": to_text(record.status),
            "updated_at": micros(record.updated_at),
            "due_at": due_at,
            "expires_at": micros_or_none(record.expires_at),
            "unplaced": record.unplaced,
            "rev": record.rev,
            "holders": sorted(record.holders),
            "labels": _stored(record.labels),
        }
        created_at = micros(record.created_at)
        if expected is None:
            columns |= {"uid": to_text(record.uid), "created_at": created_at}
        else:
            columns |= {"seq": expected.seq, "expected": expected.number}
        if labels != before:
            columns |= _label_changes(before, labels)
        fresh = expected is None or expected.state != record.state
        columns["fresh"] = fresh
        entries = b""
        if write.entries:
            columns["last"], entries = encode_entries(write.entries)
        return PreparedWrite(
            key=(record.workflow, record.id),
            columns=to_json(columns),
            expected=expected,
            labels=labels,
            labelled=labels != before,
            document=record.document,
            state=record.state,
            fresh=fresh,
            entries=entries,
            due_at=due_at,
        )
    except AsyncflowError as error:
        return Failed(error)
    except (PydanticSerializationError, ValueError, TypeError, OverflowError) as error:
        return Failed(Malformed(f"{record.workflow}/{record.id} cannot be stored: {error}"))


def statement_for(rows: Sequence[PreparedWrite]) -> tuple[Statement, tuple[bytes, ...]]:
    """Return the statement that stores *rows*, of which no two are of one instance, and its values as they are sent.

    They stand in the order in which every process locks rows, so that no two wait for each other in a ring.
    """
    order = _order(rows)
    small = b"[" + b",".join(rows[number].at(place) for place, number in enumerate(order)) + b"]"
    documents = [rows[number].document for number in order]
    states = [rows[number].state if rows[number].fresh else b"" for number in order]
    entries = [rows[number].entries for number in order]
    if any(row.labelled for row in rows):
        statement = COMMIT_WITH_LABELS
    else:
        statement = COMMIT if any(row.expected is None for row in rows) else SAVES
    return statement, (small, _array(_BYTEA, documents), _array(_BYTEA, states), _array(_TEXT, entries))


def _order(rows: Sequence[PreparedWrite]) -> list[int]:
    def place(number: int) -> tuple[int, tuple[str, str]]:
        row = rows[number]
        return (0 if row.expected is None else row.expected.seq), row.key

    return sorted(range(len(rows)), key=place)


def outcomes_of(rows: Sequence[PreparedWrite], answer: PGresult) -> list[Outcome]:
    """Say of each of *rows* how it has ended, from the lines (number in the statement, seq) that the statement gave."""
    order = _order(rows)
    saved: dict[int, int] = {}
    for line in range(answer.ntuples):
        place, seq = answer.get_value(line, 0), answer.get_value(line, 1)
        saved[order[integer(place)]] = integer(seq)
    outcomes: list[Outcome] = []
    for number, row in enumerate(rows):
        expected = row.expected
        if number not in saved:
            outcomes.append(_EXISTS if expected is None else _CONFLICT)
        else:
            times = 1 if expected is None else expected.number + 1
            outcomes.append(Saved(PostgresRevision(saved[number], times, row.labels, row.state)))
    return outcomes


def in_rounds(rows: Sequence[PreparedWrite]) -> list[list[int]]:
    """Return the places of *rows* in rounds, in order: in none of them are two of one instance."""
    rounds: list[list[int]] = []
    seen: dict[tuple[str, str], int] = {}
    for place, row in enumerate(rows):
        number = seen.get(row.key, -1) + 1
        seen[row.key] = number
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(place)
    return rounds


def _array(element: int, items: Sequence[bytes]) -> bytes:
    """Return an array in the form of the wire; *element* is the type of its items, as Postgres numbers them."""
    parts = [pack("!5i", 1, 0, element, len(items), 1)]  # dimensions, nulls, element, length, first index
    for item in items:
        parts += (pack("!i", len(item)), item)
    return b"".join(parts)


# -- reading -----------------------------------------------------------------------------------------------------------

_COLUMNS: Final = """workflow, id, seq, revision, uid, rev, status, document, state, created_at, updated_at, due_at, expires_at,
    labels::text, array_to_string(holders, ' '), unplaced, reason, tries"""
GET: Final = Statement(
    b"asyncflow_get",
    f"SELECT {_COLUMNS} FROM instances WHERE workflow = $1 AND id = $2",
    (_TEXT, _TEXT),
    (Format.TEXT, Format.TEXT),
)
GET_MANY: Final = Statement(
    b"asyncflow_get_many",
    f"SELECT {_COLUMNS} FROM unnest($1, $2) AS wanted (workflow, id) JOIN instances USING (workflow, id)",
    (_TEXTS, _TEXTS),
    (Format.BINARY, Format.BINARY),
)


def texts(items: Sequence[str]) -> bytes:
    """Return *items* as an array of the wire."""
    return _array(_TEXT, [to_text(item).encode() for item in items])


def stored_of(answer: PGresult, line: int) -> Stored:
    """Read one line of `GET` or `GET_MANY`."""
    fields = [answer.get_value(line, column) for column in range(18)]
    workflow, id_, seq, number, uid, rev, status, document, state, created, updated, due, expires, labels, holders, *rest = fields
    unplaced, reason, tries = rest
    assert document is not None
    assert state is not None
    assert labels is not None
    record = Record(
        workflow=_text(workflow),
        id=_text(id_),
        uid=_text(uid),
        rev=integer(rev),
        status=_text(status),
        document=document,
        state=state,
        created_at=moment(integer(created)),
        updated_at=moment(integer(updated)),
        due_at=moment_or_none(integer_or_none(due)),
        expires_at=moment_or_none(integer_or_none(expires)),
        labels=read_labels(labels),
        holders=frozenset(_text(holders).split()),
        unplaced=bool(integer(unplaced)),
    )
    revision = PostgresRevision(integer(seq), integer(number), labels, state)
    return Stored(record, revision, None if reason is None else _text(reason), integer(tries))


def _text(field: bytes | None) -> str:
    assert field is not None
    return from_text(field.decode())


# -- texts -------------------------------------------------------------------------------------------------------------


def to_text(text: str) -> str:
    """Return *text* as a column can hold it, in the same order: Postgres knows no NUL, so U+0001 stands before it and itself."""
    if "\x00" in text or "\x01" in text:
        return text.replace("\x01", "\x01\x02").replace("\x00", "\x01\x01")
    return text


def from_text(text: str) -> str:
    """Return what `to_text` made *text* of."""
    return text.replace("\x01\x01", "\x00").replace("\x01\x02", "\x01") if "\x01" in text else text


# -- labels ------------------------------------------------------------------------------------------------------------


def _stored(labels: Mapping[str, Label]) -> dict[str, Label]:
    return {to_text(name): to_text(value) if isinstance(value, str) else value for name, value in labels.items()}


def read_labels(text: bytes) -> Mapping[str, Label]:
    """Return the labels of the column."""
    if text == b"{}":
        return {}
    found: dict[str, Label] = from_json(text)
    return {from_text(name): from_text(value) if isinstance(value, str) else value for name, value in found.items()}


def term(value: Value) -> str:
    """Return a label's value as the index of labels has it: equal values of one kind, and no others, have one term."""
    match value:
        case bool():  # before int, of which it is one in Python, but not in JSON
            return f"b{int(value)}"
        case int() | float():
            return f"n{float(value) or 0.0!r}"  # -0.0 is 0
        case str() if len(value) <= _TERM_CHARACTERS:
            return f"s{to_text(value)}"
        case _:
            return f"h{sha256(str(value).encode()).hexdigest()}"


def _label_changes(before: bytes, now: bytes) -> dict[str, Any]:
    old, new = _terms(before), _terms(now)
    return {
        "gone": [{"name": name, "term": one} for name, one in sorted(old - new)],
        "come": [{"name": name, "term": one} for name, one in sorted(new - old)],
    }


def _terms(labels: bytes) -> set[tuple[str, str]]:
    return {(to_text(name), term(value)) for name, value in read_labels(labels).items() if value is not None}
