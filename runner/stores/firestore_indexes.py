"""The indexes of a Firestore store, as `firestore.indexes.json` has them: those that its queries need, and no other.

Firestore would index every field of every document by itself: each save would then change a dozen entries that nobody asks
for, and fields that only grow, as times do, hold a collection down to 500 writes a second. So every field that no
question goes by is exempt. Needs no client library.
"""

from collections.abc import Iterable
from typing import Any, Final

from pydantic import JsonValue

from asyncflow.definition import Definition
from runner.stores.firestore_layout import CREATED, ENTRIES, MARKER, SAVED, quoted
from runner.stores.firestore_url import history_of

_NEWEST: Final = ("created_at", "DESCENDING")
_COMPOSITES: Final = (
    # What is due, in eight parts for each workflow.
    (("due_shard", "ASCENDING"), ("due_at", "ASCENDING")),
    # Lists, the last created first.
    (("workflow", "ASCENDING"), _NEWEST),
    (("workflow", "ASCENDING"), ("status", "ASCENDING"), _NEWEST),
    (("status", "ASCENDING"), _NEWEST),
)
# The fields with an index of their own. Only ended instances have an `expiry`, and only few an `unfit`: of the others these
# cost nothing.
_SINGLE: Final = {"created_at": "DESCENDING", "expiry": "ASCENDING", "unfit": "ASCENDING"}


def firestore_indexes(definitions: Iterable[Definition[Any]], collection: str) -> dict[str, JsonValue]:
    """Return the content of `firestore.indexes.json` for these workflows in the *collection* of their store's URL.

    `firebase deploy --only firestore:indexes` makes them. A label that is declared later needs its index before instances
    are found by it; what was saved before is in it too.
    """
    return indexes_of(collection, {label for definition in definitions for label in definition.labels})


def indexes_of(collection: str, labels: Iterable[str] = ()) -> dict[str, JsonValue]:
    """Return the content of `firestore.indexes.json` for a *collection* whose instances are found by these *labels*."""
    found_by_label = [(("workflow", "ASCENDING"), (f"labels.{quoted(label)}", "ASCENDING"), _NEWEST) for label in sorted(labels)]
    overrides = [_override(collection, name, _SINGLE.get(name)) for name in sorted({*CREATED, *SAVED})]
    history = history_of(collection)
    # Old entries are looked for in one instance; ended instances that have some, in all.
    overrides += [_override(history, name, "ASCENDING" if name == "at" else None) for name in ENTRIES]
    overrides.append(_override(history, MARKER, "ASCENDING", scope="COLLECTION_GROUP"))
    return {
        "indexes": [
            {
                "collectionGroup": collection,
                "queryScope": "COLLECTION",
                "fields": [{"fieldPath": name, "order": order} for name, order in fields],
            }
            for fields in (*_COMPOSITES, *found_by_label)
        ],
        "fieldOverrides": overrides,
    }


def _override(collection: str, name: str, order: str | None, scope: str = "COLLECTION") -> JsonValue:
    indexes: list[JsonValue] = [] if order is None else [{"order": order, "queryScope": scope}]
    return {"collectionGroup": collection, "fieldPath": name, "indexes": indexes}
