"""The history of instances: documents below theirs, written with the save, read in pages, pruned, deleted with it."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from pydantic import JsonValue

from runner.stores.base import ENDED
from runner.stores.firestore_calls import FirestoreCalls
from runner.stores.firestore_errors import Refused
from runner.stores.firestore_layout import MARKER, document_id, history_end, history_id, key_of, sortable
from runner.stores.firestore_queries import entries_query, list_query, markers_query, names_query, old_query, question_of
from runner.stores.firestore_rows import entries_of
from runner.stores.firestore_values import Document, DocumentWrite, Precondition, micros_of, scalar
from runner.stores.pages import Place

DELETES_MAX: Final = 400
"""How many documents one commit deletes: below the 500 that commits had as their bound for years."""
LOOKS: Final = 100
"""How many ended instances are looked at per query when history is pruned."""


class FirestoreHistory:
    """The histories of one store."""

    def __init__(self, calls: FirestoreCalls) -> None:
        self._calls = calls
        self._url = calls.url

    def entries(self, workflow: str, id: str, after: int, limit: int) -> list[Mapping[str, JsonValue]]:
        """Return at most *limit* entries with numbers *after* that one, the oldest first; one read for each write, and one."""
        name = self._name(workflow, id)
        document = self._calls.fetch(name, ("born",))
        if document is None:
            return []
        born = document.fields["born"].string_value
        query = entries_query(self._url, name, history_id(born, after), history_end(born), limit)
        found = self._calls.query(query, name)
        return [entry for document in found for entry in entries_of(document) if _number(entry) > after][:limit]

    def delete_with(self, name: str, deletion: Any) -> None:
        """Make the *deletion* of the document *name* with its history: in one commit where that has not more than 400 documents.

        Of a longer one the rest goes afterwards. What a crash leaves of it is never shown: it is below nothing, and an
        instance made again under that name has a history of its own.
        """
        first = self._below(name, DELETES_MAX)
        self._calls.commit([deletion, *map(_deleted, first)])
        while len(first) == DELETES_MAX:
            first = self._below(name, DELETES_MAX)
            if first:
                self._calls.commit([*map(_deleted, first)])

    def prune(self, workflows: Collection[str], before: int, limit: int, *, live: bool) -> int:
        """See `Store.prune_history`. Of live instances each one is looked at, since nothing but an end makes a marker."""
        pruned = 0
        for workflow in sorted(set(workflows)):
            pruned += self._prune_ended(workflow, before, limit - pruned)
            if live:
                pruned += self._prune_all(workflow, before, limit - pruned)
        return pruned

    def _prune_ended(self, workflow: str, before: int, limit: int) -> int:
        pruned = 0
        last: Any = None
        while pruned < limit:
            markers = self._calls.query(markers_query(self._url, workflow, before, last, LOOKS))
            for marker in markers:
                last = marker
                if pruned < limit and self._has_ended(_above(marker.name)):
                    pruned += self._prune_one(_above(marker.name), before, limit - pruned, marker.name)
            if len(markers) < LOOKS:
                break
        return pruned

    def _prune_all(self, workflow: str, before: int, limit: int) -> int:
        pruned = 0
        after: Place | None = None
        while pruned < limit:
            found = self._calls.query(list_query(self._url, [workflow], question_of(None, ()), after, LOOKS))
            for document in found:
                after = (micros_of(document.fields["created_at"].timestamp_value), key_of(document.name).id, workflow)
                pruned += self._prune_one(document.name, before, limit - pruned, "")
            if len(found) < LOOKS:
                break
        return pruned

    def _prune_one(self, name: str, before: int, limit: int, marker: str) -> int:
        """Forget old writes of one instance, and set its *marker* to the first one that is left."""
        pruned = 0
        while pruned < limit:
            old = self._calls.query(old_query(self._url, before, min(DELETES_MAX, limit - pruned)), name)
            if old:
                self._calls.commit([_deleted(document.name) for document in old])
            pruned += len(old)
            if len(old) < DELETES_MAX:
                break
        if marker:
            self._move(marker, name)
        return pruned

    def _move(self, marker: str, name: str) -> None:
        left = self._calls.query(old_query(self._url, None, 1), name)
        if not left:
            self._calls.commit([_deleted(marker)])
            return
        at = micros_of(left[0].fields["at"].timestamp_value)
        fields = {MARKER: scalar(sortable(key_of(name).workflow, at))}
        with suppress(Refused):  # the instance was deleted meanwhile
            there = Precondition(exists=True)
            self._calls.commit([DocumentWrite(update=Document(name=marker, fields=fields), current_document=there)])

    def _has_ended(self, name: str) -> bool:
        document = self._calls.fetch(name, ("status",))
        return document is None or document.fields["status"].string_value in ENDED

    def _below(self, name: str, limit: int) -> Sequence[str]:
        return [document.name for document in self._calls.query(names_query(self._url, limit), name)]

    def _name(self, workflow: str, id: str) -> str:
        return f"{self._url.root}/{self._url.collection}/{document_id(workflow, id)}"


def _above(name: str) -> str:
    return name.rsplit("/", 2)[0]


def _deleted(name: str) -> Any:
    return DocumentWrite(delete=name)


def _number(entry: Mapping[str, JsonValue]) -> int:
    number = entry["n"]
    assert isinstance(number, int)
    return number
