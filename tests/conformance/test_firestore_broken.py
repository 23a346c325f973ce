"""Firestore drivers with one fault each, and the test that catches it: the traps of this store are looked at."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, TypeAlias

import pytest

from asyncflow.errors import AsyncflowError
from runner.stores import (
    firestore,
    firestore_calls,
    firestore_history,
    firestore_layout,
    firestore_queries,
    firestore_rows,
    firestore_search,
    open_store,
)
from runner.stores.base import Conflict, Failed, Key, Outcome, Outcomes, Saved, Write
from runner.stores.firestore import FirestoreStore
from runner.stores.firestore_errors import AGAIN, DOUBTFUL, Refused
from runner.stores.firestore_rows import PreparedWrite
from runner.stores.firestore_values import Precondition
from tests.conformance import test_firestore_faults, test_firestore_layout
from tests.conformance.promises import OpenStore
from tests.conformance.suite import StoreConformance
from tests.conformance.test_firestore import TestFirestoreStore as FirestoreConformance
from tests.conformance.test_firestore_faults import direct, no_waits, proxy, store
from tests.servers.firestore import SERVER, firestore_url

__all__ = ["direct", "firestore_url", "no_waits", "proxy", "store"]

Break: TypeAlias = Callable[[pytest.MonkeyPatch], None]
MODULES: Final = (firestore, firestore_history, firestore_layout, firestore_queries, firestore_rows, firestore_search)


def no_precondition(patch: pytest.MonkeyPatch) -> None:
    """A save asks only whether the document is there."""
    patch.setattr(firestore_rows, "unchanged", lambda expected: Precondition(exists=True))


def create_overwrites(patch: pytest.MonkeyPatch) -> None:
    """A create asks nothing."""
    patch.setattr(firestore_rows, "Precondition", lambda **asked: Precondition(**asked) if "update_time" in asked else None)


def no_counter(patch: pytest.MonkeyPatch) -> None:
    """A save that changes nothing changes no update time either."""
    columns = firestore_rows._columns
    patch.setattr(firestore_rows, "_columns", lambda record, revision: columns(record, revision._replace(saves=1)))


def no_mask(patch: pytest.MonkeyPatch) -> None:
    """A save replaces the document, with what the create wrote."""
    masked = firestore_rows.masked

    def whole(*arguments: Any) -> Any:
        made = masked(*arguments)
        made.ClearField("update_mask")
        return made

    patch.setattr(firestore_rows, "masked", whole)


def forgotten_field(patch: pytest.MonkeyPatch) -> None:
    """What is not due any more stays due."""
    patch.setattr(firestore_rows, "SAVED", [name for name in firestore_layout.SAVED if name != "due_at"])


def wrong_shard(patch: pytest.MonkeyPatch) -> None:
    """The part of the index is that of the id alone."""
    patch.setattr(firestore_rows, "shard_of", lambda _, id_: firestore_layout.shard_of("", id_))


def forgotten_shard(patch: pytest.MonkeyPatch) -> None:
    """Seven of eight parts are looked at."""
    shards = firestore_layout.shards_of
    patch.setattr(firestore_search, "shards_of", lambda names: [one for one in shards(names) if not one.endswith("/7")])


def due_moves(patch: pytest.MonkeyPatch) -> None:
    """Handing out is a save, with which its worker's own save conflicts."""
    due = FirestoreStore.due

    def moving(self: FirestoreStore, workflows: Any, *, now: datetime, limit: int, process: str = "") -> Sequence[Key]:
        found = due(self, workflows, now=now, limit=limit)
        for stored in self.get_many(found):
            assert stored is not None
            self.commit([Write(stored.record, stored.revision)])
        return found

    patch.setattr(FirestoreStore, "due", moving)


def history_first(patch: pytest.MonkeyPatch) -> None:
    """The entries are a commit of their own, before the save."""

    def commit(self: FirestoreStore, prepared: PreparedWrite) -> Outcome:
        if prepared.revision is not None and prepared.writes[1:]:
            self._calls.commit(prepared.writes[1:])
        return commit_one(self, replace(prepared, writes=prepared.writes[:1]))

    commit_one = FirestoreStore._commit_one
    patch.setattr(FirestoreStore, "_commit_one", commit)


def history_without_birth(patch: pytest.MonkeyPatch) -> None:
    """All instances that ever had an id have one history."""
    patch.setattr(secrets, "token_hex", lambda size: "0" * 2 * size)


def one_commit_for_all(patch: pytest.MonkeyPatch) -> None:
    """A batch stands and falls as one."""

    def commit(self: FirestoreStore, writes: Sequence[Write]) -> Outcomes:
        prepared = [firestore_rows.prepare(self._url, write) for write in writes]
        good = [one for one in prepared if isinstance(one, PreparedWrite) and one.revision is not None]
        try:
            updated = iter(self._calls.commit([one.writes[0] for one in good]))
        except Refused:
            return [Conflict()] * len(writes)
        except AsyncflowError as error:
            return [Failed(error)] * len(writes)
        return [
            one if isinstance(one, Failed) else Saved(one.revision._replace(updated=next(updated)) if one.revision else None)
            for one in prepared
        ]

    patch.setattr(FirestoreStore, "commit", commit)


def workflow_first(patch: pytest.MonkeyPatch) -> None:
    """Documents are named by their workflow first, so that ties of a list are ordered by it."""
    document_id, key_of = firestore_layout.document_id, firestore_layout.key_of
    for module in MODULES:
        if hasattr(module, "document_id"):
            patch.setattr(module, "document_id", lambda workflow, id_: document_id(id_, workflow))
        if hasattr(module, "key_of"):
            patch.setattr(module, "key_of", lambda name: Key(*reversed(key_of(name))))


def merged_indexes_with_in(patch: pytest.MonkeyPatch) -> None:
    """Several workflows and several conditions in one query."""

    def page(self: Any, workflows: Any, asked: Any, *rest: Any) -> list[Any]:
        names = self._workflows() if workflows is None else sorted(set(workflows))
        return list(self._calls.query(firestore_queries.list_query(self._url, names, asked, *rest))) if names else []

    patch.setattr(firestore_search.FirestoreSearch, "page", page)


def echo_is_a_conflict(patch: pytest.MonkeyPatch) -> None:
    """A lost answer is tried again and forgotten."""
    patch.setattr(firestore_calls, "AGAIN", AGAIN + DOUBTFUL)
    patch.setattr(firestore_calls, "DOUBTFUL", ())


def retries_of_the_client(patch: pytest.MonkeyPatch) -> None:
    """The client library repeats commits by itself."""
    open_client = firestore_calls.open_client

    def opened(url: Any) -> Any:
        client = open_client(url)
        commit = client.commit

        def repeating(*, retry: None, timeout: float, **arguments: Any) -> Any:
            return commit(**arguments)

        client.commit = repeating  # type: ignore[assignment, method-assign]
        return client

    patch.setattr(firestore_calls, "open_client", opened)


def no_doubt(patch: pytest.MonkeyPatch) -> None:
    """A write whose answer was lost has failed."""
    patch.setattr(firestore, "IN_DOUBT", None)


# Each with the test of the suite that catches it.
CAUGHT_BY: Final[dict[Break, str]] = {
    no_precondition: "test_a_save_needs_the_revision_of_the_last_one",
    create_overwrites: "test_a_second_create_of_an_id_changes_nothing",
    no_counter: "test_a_save_that_changes_nothing_is_a_save_too",
    no_mask: "test_a_save_replaces_the_record",
    forgotten_field: "test_due_follows_each_save",
    wrong_shard: "test_due_is_what_has_come_the_longest_overdue_first",
    forgotten_shard: "test_no_two_workers_get_the_same",
    due_moves: "test_what_was_handed_out_is_due_again_later_and_nothing_else_has_changed",
    history_first: "test_entries_are_there_exactly_when_their_save_is",
    one_commit_for_all: "test_each_write_of_a_batch_stands_for_itself",
    workflow_first: "test_of_one_instant_the_largest_id_and_workflow_come_first",
}
# Those that only lost answers bring out, each with its test of test_firestore_faults.
CAUGHT_BY_FAULTS: Final[dict[Break, str]] = {
    echo_is_a_conflict: "test_a_save_whose_answer_was_lost_is_in_doubt_and_its_echo_is_no_conflict",
    retries_of_the_client: "test_a_save_whose_answer_was_lost_is_in_doubt_and_its_echo_is_no_conflict",
    no_doubt: "test_a_create_whose_answer_was_lost_is_in_doubt",
}
CATCHES: Final = (AssertionError, pytest.fail.Exception)

pytestmark = SERVER


@pytest.fixture
def open_one(firestore_url: str) -> Iterator[OpenStore]:
    with ExitStack() as stack:

        def open_handle() -> FirestoreStore:
            opened = open_store(firestore_url)
            stack.callback(opened.close)
            assert isinstance(opened, FirestoreStore)
            return opened

        yield open_handle


@pytest.mark.xfail(strict=True, raises=CATCHES)
@pytest.mark.parametrize("fault", CAUGHT_BY, ids=lambda fault: fault.__name__)
def test_a_broken_driver_passes(fault: Break, open_one: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    getattr(StoreConformance(), CAUGHT_BY[fault])(open_one)


@pytest.mark.xfail(strict=True, raises=CATCHES)
@pytest.mark.parametrize("fault", CAUGHT_BY_FAULTS, ids=lambda fault: fault.__name__)
def test_a_broken_driver_passes_when_answers_are_lost(
    fault: Break, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    fault(monkeypatch)
    behind, beside = request.getfixturevalue("store"), request.getfixturevalue("direct")
    getattr(test_firestore_faults, CAUGHT_BY_FAULTS[fault])(request.getfixturevalue("proxy"), behind, beside)


@pytest.mark.xfail(strict=True, raises=CATCHES)
def test_a_driver_without_births_passes(open_one: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    history_without_birth(monkeypatch)
    test_firestore_layout.test_what_a_crash_left_of_a_history_is_not_shown_by_the_next_instance(open_one(), monkeypatch)


@pytest.mark.xfail(strict=True, raises=CATCHES)
def test_a_driver_that_asks_without_an_index_passes(open_one: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = FirestoreConformance()
    merged_indexes_with_in(monkeypatch)
    vars(FirestoreConformance)["served_by_an_index"].__wrapped__(suite, monkeypatch)
    suite.test_every_question_that_is_not_refused_is_served(open_one, ["PizzaOrder", "Trip"])


@pytest.mark.parametrize("name", sorted(set(CAUGHT_BY.values())))
def test_a_sound_driver_passes(name: str, open_one: OpenStore) -> None:
    getattr(StoreConformance(), name)(open_one)
