"""How a record becomes a document with its history, and comes back."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pydantic import JsonValue
from pydantic_core import from_json

from asyncflow import limits
from asyncflow.errors import AsyncflowError, Malformed, TooLarge
from runner.stores.base import ENDED, PAUSED, Failed, Record, Stored, Summary, Write
from runner.stores.encoding import check_record, encode_entries, micros, micros_or_none, moment, moment_or_none
from runner.stores.firestore_layout import (
    MARKER,
    SAVED,
    document_id,
    history_id,
    key_of,
    shard_of,
    sortable,
)
from runner.stores.firestore_url import FirestoreUrl
from runner.stores.firestore_values import (
    DOCUMENT_BYTES_MAX,
    Document,
    DocumentWrite,
    Fields,
    Precondition,
    bytes_of,
    document_bytes,
    instant,
    integer,
    label_of,
    mapping,
    micros_at,
    micros_of,
    scalar,
    text,
    timestamp,
    truth,
    words,
)

ENTRIES_BYTES_MAX: Final = 900 * limits.KIB
"""The entries of one write that lie in one document of history; more of them take several, in the same commit."""
COMMIT_BYTES_MAX: Final = 9_500_000
"""One commit with its history: Firestore takes 10 MiB in a request, names and tags included. An emulator takes 4 MiB."""
_BORN_BYTES: Final = 6
_INTEGER_MAX: Final = 2**63


class FirestoreRevision(NamedTuple):
    """A document as of its last write: which, when (in microseconds), how often; since when it has history."""

    document: str
    updated: int
    saves: int
    born: str
    history_since: int | None


@dataclass(frozen=True, slots=True)
class PreparedWrite:
    """A write as a commit: the document first; `revision` is what it will have, but for the update time."""

    writes: Sequence[Any]
    creates: bool
    revision: FirestoreRevision | None
    """None: the revision it expects is of another instance."""
    document: str


def prepare(url: FirestoreUrl, write: Write) -> PreparedWrite | Failed:
    """Do what needs no server."""
    record, expected = write.record, write.expected
    where = f"{record.workflow}/{record.id}"
    if expected is not None and not isinstance(expected, FirestoreRevision):
        return Failed(Malformed(f"{where}: {expected!r} is no revision of this store"))
    try:
        check_record(record)
        document = document_id(record.workflow, record.id)
        if expected is not None and expected.document != document:
            return PreparedWrite((), False, None, document)
        return _prepared(url, write, expected, document)
    except AsyncflowError as error:
        return Failed(error)
    except (OverflowError, TypeError, ValueError) as error:
        return Failed(Malformed(f"{where} cannot be stored: {error}"))


def _prepared(url: FirestoreUrl, write: Write, expected: FirestoreRevision | None, document: str) -> PreparedWrite:
    record = write.record
    updated_at = micros(record.updated_at)
    parts = _split(write.entries)
    since = None if expected is None else expected.history_since
    if parts and (since is None or updated_at < since):
        since = updated_at
    revision = FirestoreRevision(
        document=document,
        updated=0,
        saves=1 if expected is None else expected.saves + 1,
        born=secrets.token_hex(_BORN_BYTES) if expected is None else expected.born,
        history_since=since,
    )
    fields = _columns(record, revision)
    path = f"{url.collection}/{document}"
    name = f"{url.root}/{path}"
    if expected is None:
        fields |= _created(record, revision.born)
    if expected is None:
        writes = [DocumentWrite(update=Document(name=name, fields=fields), current_document=Precondition(exists=False))]
    else:
        writes = [masked(name, fields, SAVED, expected)]
    # Counted exactly only where it may matter: the buffers are never smaller than two thirds of what Firestore counts.
    if writes[0].ByteSize() > DOCUMENT_BYTES_MAX // 2 and (size := document_bytes(path, fields)) > DOCUMENT_BYTES_MAX:
        raise TooLarge(
            f"{record.workflow}/{record.id} makes a document of {size} bytes, Firestore takes {DOCUMENT_BYTES_MAX}:"
            " its labels are too large"
        )
    writes += _history_writes(f"{name}/{url.history}", parts, revision, record, updated_at)
    if sum(one.ByteSize() for one in writes) > COMMIT_BYTES_MAX:
        raise TooLarge(f"{record.workflow}/{record.id}: its history entries are over {COMMIT_BYTES_MAX} bytes in one write")
    return PreparedWrite(writes, expected is None, revision, document)


def masked(name: str, fields: Fields, mask: Sequence[str], expected: FirestoreRevision) -> Any:
    """Make the write that sets *fields* and removes what else *mask* names, if the document is still as *expected*."""
    return DocumentWrite(
        update=Document(name=name, fields=fields),
        update_mask={"field_paths": mask},
        current_document=unchanged(expected),
    )


def unchanged(expected: FirestoreRevision) -> Any:
    """Make the precondition of every write but a create."""
    return Precondition(update_time=timestamp(expected.updated))


# -- columns -----------------------------------------------------------------------------------------------------------


def _created(record: Record, born: str) -> Fields:
    return {
        "workflow": scalar(record.workflow),
        "uid": scalar(record.uid),
        "born": scalar(born),
        "created_at": instant(micros(record.created_at)),
        "due_shard": scalar(shard_of(record.workflow, record.id)),
    }


def _columns(record: Record, revision: FirestoreRevision) -> Fields:
    """Return what each save writes. What has no value has no field: it costs neither bytes nor an entry of an index."""
    fields = {
        "status": scalar(record.status),
        "rev": integer(record.rev),
        # Counts the saves: a write that changed nothing would leave the update time, and so the revision, as it was.
        "saves": integer(revision.saves),
        "updated_at": instant(micros(record.updated_at)),
        "document": text(record.document),
        "state": text(record.state),
    }
    for name, at in (
        ("due_at", micros_or_none(record.due_at)),
        ("expires_at", micros_or_none(record.expires_at)),
        ("history_since", revision.history_since),
    ):
        if at is not None:
            fields[name] = instant(at)
    if record.expires_at is not None and record.status in ENDED:
        fields["expiry"] = scalar(sortable(record.workflow, micros(record.expires_at)))
    if record.labels:
        fields["labels"] = mapping(record.labels)
    if record.holders:
        fields["holders"] = words(sorted(record.holders))
    if record.unplaced:
        fields["unplaced"] = truth(True)
        fields["unfit"] = scalar(record.workflow)
    return fields


def parked(stored: Stored, expected: FirestoreRevision, reason: str) -> Fields:
    """Return the fields of `MARKED` as `Store.park` wants them."""
    return {
        "status": scalar(PAUSED),
        "reason": scalar(reason),
        "unfit": scalar(stored.record.workflow),
        "saves": integer(expected.saves + 1),
        **({"tries": integer(stored.tries)} if stored.tries else {}),
    }


def deferred(stored: Stored, expected: FirestoreRevision, until: int) -> Fields:
    """Return the fields of `MARKED` as `Store.defer` wants them."""
    record = stored.record
    fields = {
        "status": scalar(record.status),
        "due_at": instant(until),
        "saved_due_at": instant(micros_or_none(record.due_at)),
        "unfit": scalar(record.workflow),
        "tries": integer(stored.tries + 1),
        "saves": integer(expected.saves + 1),
    }
    if stored.reason is not None:
        fields["reason"] = scalar(stored.reason)
    if record.expires_at is not None and record.status in ENDED:
        fields["expiry"] = scalar(sortable(record.workflow, micros(record.expires_at)))
    return fields


# -- history -----------------------------------------------------------------------------------------------------------


def _split(entries: Sequence[Mapping[str, JsonValue]]) -> list[tuple[int, bytes]]:
    """Return the last `n` and the JSON of each document of history that *entries* need."""
    if not entries:
        return []
    last, whole = encode_entries(entries)
    if last >= _INTEGER_MAX:
        raise Malformed(f"the entries of a write are numbered below 2^63, this one is {last}")
    if len(whole) <= ENTRIES_BYTES_MAX or len(entries) == 1:
        return [(last, whole)]
    half = len(entries) // 2
    return _split(entries[:half]) + _split(entries[half:])


def _history_writes(
    below: str, parts: Sequence[tuple[int, bytes]], revision: FirestoreRevision, record: Record, updated_at: int
) -> list[Any]:
    writes = [
        DocumentWrite(
            update=Document(
                name=f"{below}/{history_id(revision.born, last)}", fields={"at": instant(updated_at), "entries": text(entries)}
            )
        )
        for last, entries in parts
    ]
    if revision.history_since is not None and record.status in ENDED:
        marker = {MARKER: scalar(sortable(record.workflow, revision.history_since))}
        writes.append(DocumentWrite(update=Document(name=f"{below}/{revision.born}", fields=marker)))
    return writes


def entries_of(document: Any) -> list[Mapping[str, JsonValue]]:
    """Return the entries in a document of history."""
    found: list[Mapping[str, JsonValue]] = from_json(bytes_of(document.fields["entries"]))
    return found


# -- reading -----------------------------------------------------------------------------------------------------------


def stored_of(document: Any) -> Stored:
    """Return what lies in a document, with its revision."""
    fields = document.fields
    key = key_of(document.name)
    tries = int(fields["tries"].integer_value) if "tries" in fields else 0
    due_at = micros_at(fields, "saved_due_at" if "saved_due_at" in fields else "due_at")
    record = Record(
        workflow=key.workflow,
        id=key.id,
        uid=fields["uid"].string_value,
        rev=fields["rev"].integer_value,
        status=fields["status"].string_value,
        document=bytes_of(fields["document"]),
        state=bytes_of(fields["state"]),
        created_at=_moment(fields, "created_at"),
        updated_at=_moment(fields, "updated_at"),
        due_at=moment_or_none(due_at),
        expires_at=moment_or_none(micros_at(fields, "expires_at")),
        labels=_labels(fields),
        holders=frozenset(one.string_value for one in fields["holders"].array_value.values) if "holders" in fields else frozenset(),
        unplaced="unplaced" in fields,
    )
    return Stored(record, revision_of(document), _reason(fields), tries)


def revision_of(document: Any) -> FirestoreRevision:
    """Return the revision that a document has now."""
    fields = document.fields
    return FirestoreRevision(
        document=document.name.rpartition("/")[2],
        updated=micros_of(document.update_time),
        saves=fields["saves"].integer_value,
        born=fields["born"].string_value,
        history_since=micros_at(fields, "history_since"),
    )


def summary_of(document: Any) -> Summary:
    """Return the line of a list for a document of which only `SUMMARY` was read."""
    fields = document.fields
    key = key_of(document.name)
    return Summary(
        workflow=key.workflow,
        id=key.id,
        status=fields["status"].string_value,
        document=bytes_of(fields["document"]),
        created_at=_moment(fields, "created_at"),
        updated_at=_moment(fields, "updated_at"),
        labels=_labels(fields),
        reason=_reason(fields),
    )


def _moment(fields: Mapping[str, Any], name: str) -> Any:
    return moment(micros_of(fields[name].timestamp_value))


def _labels(fields: Mapping[str, Any]) -> dict[str, Any]:
    if "labels" not in fields:
        return {}
    return {name: label_of(value) for name, value in fields["labels"].map_value.fields.items()}


def _reason(fields: Mapping[str, Any]) -> str | None:
    return fields["reason"].string_value if "reason" in fields else None
