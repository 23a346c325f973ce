"""What the conformance suite stores, and how it says that a write must succeed."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import JsonValue

from asyncflow.errors import AsyncflowError
from runner.stores.base import Failed, HistoryPage, Outcome, Record, Revision, Saved, Store, Write

NOW = datetime(2026, 1, 31, 9, 0, 0, 123_456, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
ORDER = "PizzaOrder"
TRIP = "Trip"


def record(id: str = "o-1", workflow: str = ORDER, **changes: Any) -> Record:
    """Make a record that waits for nothing, with *changes*."""
    columns: dict[str, Any] = {
        "uid": f"uid of {id}",
        "rev": 1,
        "status": "Running",
        "document": b'{"threads":[]}',
        "state": b'{"paid":"0"}',
        "created_at": NOW,
        "updated_at": NOW,
        "due_at": None,
        "expires_at": None,
        "labels": {},
        "holders": frozenset(),
        "unplaced": False,
    }
    return Record(workflow=workflow, id=id, **{**columns, **changes})


def entries(*numbers: int) -> list[Mapping[str, JsonValue]]:
    """Make history entries with these numbers."""
    return [{"n": number, "kind": "step", "path": "shopping/customer decides"} for number in numbers]


def create(store: Store, new: Record, history: Sequence[Mapping[str, JsonValue]] = ()) -> Revision:
    """Create it, or fail the test."""
    return saved(store.commit([Write(new, None, history)])[0])


def save(store: Store, changed: Record, expected: Revision, history: Sequence[Mapping[str, JsonValue]] = ()) -> Revision:
    """Save it, or fail the test."""
    assert expected is not None
    return saved(store.commit([Write(changed, expected, history)])[0])


def saved(outcome: Outcome) -> Revision:
    """Return the revision of a write that must have been saved."""
    assert isinstance(outcome, Saved), outcome
    return outcome.revision


def failed(outcome: Outcome) -> AsyncflowError:
    """Return the error of a write that must have failed, and surely has changed nothing."""
    assert isinstance(outcome, Failed), outcome
    assert not outcome.in_doubt
    return outcome.error


def read(store: Store, id: str = "o-1", workflow: str = ORDER) -> Record:
    """Return what is stored, which must be there."""
    stored = store.get(workflow, id)
    assert stored is not None
    return stored.record


def revision(store: Store, id: str = "o-1", workflow: str = ORDER) -> Revision:
    """Return the revision of what is stored, which must be there."""
    stored = store.get(workflow, id)
    assert stored is not None
    return stored.revision


def numbers(store: Store, id: str = "o-1", workflow: str = ORDER) -> list[JsonValue]:
    """Return the numbers of all history entries, in the order of the store."""
    return [entry["n"] for entry in store.history(workflow, id, page_size=1_000).entries]


def pages_of_history(store: Store, page_size: int, id: str = "o-1") -> list[HistoryPage]:
    """Return all pages."""
    pages = [store.history(ORDER, id, page_size=page_size)]
    while (token := pages[-1].next_page_token) is not None:
        pages.append(store.history(ORDER, id, page_size=page_size, page_token=token))
    return pages


def listed(store: Store, workflows: Sequence[str] | None = None, **question: Any) -> list[str]:
    """Return the ids of a list, through all its pages."""
    page = store.list(workflows, **question)
    ids = [item.id for item in page.items]
    while page.next_page_token is not None:
        page = store.list(workflows, **question, page_token=page.next_page_token)
        ids += [item.id for item in page.items]
    return ids


def ids(keys: Collection[tuple[str, str]]) -> list[str]:
    """Return the ids of *keys*, in their order."""
    return [key[1] for key in keys]
