"""Which queries a question needs, and what they find put together again."""

from collections.abc import Collection, Sequence
from typing import Any

from runner.stores.base import Key
from runner.stores.firestore_calls import FirestoreCalls
from runner.stores.firestore_layout import key_of, shards_of
from runner.stores.firestore_queries import (
    Question,
    due_query,
    expired_query,
    in_parts,
    list_query,
    next_workflow_query,
    unfit_query,
)
from runner.stores.firestore_values import micros_at
from runner.stores.pages import Place


class FirestoreSearch:
    """The questions about many instances of one store."""

    def __init__(self, calls: FirestoreCalls) -> None:
        self._calls = calls
        self._url = calls.url

    def page(self, workflows: Sequence[str] | None, asked: Question, after: Place | None, limit: int) -> list[Any]:
        """Return the documents that fit, at most *limit* from each query.

        One query for 30 workflows. Where two indexes have to serve one query together (a status and a label, two labels),
        each workflow has its own: merged indexes serve plain equalities best.
        """
        if workflows is None and not asked.labels:
            return self._calls.query(list_query(self._url, None, asked, after, limit))
        names = self._workflows() if workflows is None else sorted(set(workflows))
        parts = in_parts(names) if asked.equalities < 2 else [[name] for name in names]
        return [found for part in parts for found in self._calls.query(list_query(self._url, part, asked, after, limit))]

    def due(self, workflows: Collection[str], until: int | None, limit: int) -> list[tuple[int, Key]]:
        """Return the first *limit* that are due up to an instant in microseconds (None: whenever), the earliest first."""
        parts = in_parts(shards_of(workflows))
        found = [one for part in parts for one in self._calls.query(due_query(self._url, part, until, limit))]
        return _earliest(found, "due_at", limit)

    def expired(self, workflows: Collection[str], until: int, limit: int) -> list[tuple[int, Key]]:
        """Return the first *limit* that have expired at an instant in microseconds, the earliest first."""
        names = set(workflows)
        found = [one for name in names for one in self._calls.query(expired_query(self._url, name, until, limit))]
        return _earliest(found, "expires_at", limit)

    def unfit(self, workflows: Collection[str]) -> list[Key]:
        """Return those that other code may get on with."""
        parts = in_parts(sorted(set(workflows)))
        return sorted(key_of(one.name) for part in parts for one in self._calls.query(unfit_query(self._url, part)))

    def _workflows(self) -> list[str]:
        """Return the workflows that the store has instances of: one read for each, and one."""
        names: list[str] = []
        while found := self._calls.query(next_workflow_query(self._url, names[-1] if names else "")):
            names.append(found[0].fields["workflow"].string_value)
        return names


def _earliest(found: Sequence[Any], name: str, limit: int) -> list[tuple[int, Key]]:
    timed = [(micros_at(one.fields, name), key_of(one.name)) for one in found]
    return sorted((at, key) for at, key in timed if at is not None)[:limit]
