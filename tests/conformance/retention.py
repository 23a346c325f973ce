"""Promises about history and about what may be swept away."""

from collections.abc import Mapping

import pytest
from pydantic import JsonValue

from asyncflow.errors import Malformed
from runner.stores.base import ENDED
from tests.conformance.promises import OpenStore, StorePromises
from tests.conformance.records import (
    HOUR,
    NOW,
    ORDER,
    SECOND,
    TRIP,
    create,
    entries,
    ids,
    numbers,
    pages_of_history,
    record,
    revision,
    save,
)


class HistoryPromises(StorePromises):
    def test_entries_are_read_as_they_were_the_oldest_first(self, open_store: OpenStore) -> None:
        store = open_store()
        first: list[Mapping[str, JsonValue]] = [
            {"n": 1, "kind": "started", "input": {"ä": [1, 2.5, None, True, "🍕"]}, "caller": None}
        ]
        at = create(store, record(), first)
        at = save(store, record(), at)
        save(store, record(status="Finished"), at, entries(2, 3, 7))
        assert store.history(ORDER, "o-1").entries == (*first, *entries(2, 3, 7))

    def test_an_instance_has_its_own_history(self, open_store: OpenStore) -> None:
        store = open_store()
        create(store, record("o-1"), entries(1))
        create(store, record("o-2"), entries(1, 2))
        create(store, record("o-1", TRIP), entries(5))
        assert [numbers(store, "o-1"), numbers(store, "o-2"), numbers(store, "o-1", TRIP)] == [[1], [1, 2], [5]]
        page = store.history(ORDER, "o-3")
        assert (page.entries, page.next_page_token) == ((), None)

    def test_pages_have_each_entry_once(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record(), entries(1, 2, 3))
        for number in range(4, 10, 2):
            at = save(store, record(), at, entries(number, number + 1))
        for size in (1, 2, 3, 4, 8, 9, 10):
            pages = pages_of_history(store, size)
            assert [entry["n"] for page in pages for entry in page.entries] == list(range(1, 10))
            assert all(len(page.entries) == size for page in pages[:-1])
            assert pages[-1].entries

    def test_what_is_written_meanwhile_comes_on_later_pages(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record(), entries(1, 2, 3))
        first = store.history(ORDER, "o-1", page_size=2)
        save(open_store(), record(), at, entries(4))
        rest = store.history(ORDER, "o-1", page_token=first.next_page_token)
        assert [entry["n"] for entry in rest.entries] == [3, 4]
        assert rest.next_page_token is None

    def test_pages_are_checked(self, open_store: OpenStore) -> None:
        store = open_store()
        create(store, record("o-1"), entries(1, 2))
        create(store, record("o-2"), entries(1, 2))
        token = store.history(ORDER, "o-1", page_size=1).next_page_token
        assert token is not None
        for question in ({"page_size": 0}, {"page_size": 1_001}, {"page_token": "x"}, {"page_token": token + "x"}):
            with pytest.raises(Malformed):
                store.history(ORDER, "o-1", **question)
        for workflow, id_ in ((ORDER, "o-2"), (TRIP, "o-1")):
            with pytest.raises(Malformed):
                store.history(workflow, id_, page_token=token)


class RetentionPromises(StorePromises):
    def test_expired_are_the_ended_whose_time_is_over(self, open_store: OpenStore) -> None:
        store = open_store()
        for number, status in enumerate(ENDED):
            create(store, record(status, status=status, expires_at=NOW - number * SECOND))
        create(store, record("later", status="Finished", expires_at=NOW + SECOND))
        create(store, record("for ever", status="Finished"))
        create(store, record("elsewhere", TRIP, status="Finished", expires_at=NOW))
        assert ids(store.expired([ORDER], now=NOW, limit=9)) == [*reversed(ENDED)]
        assert ids(store.expired([ORDER], now=NOW, limit=2)) == [*reversed(ENDED)][:2]
        assert store.expired([ORDER], now=NOW, limit=0) == []
        assert store.expired([TRIP], now=NOW, limit=9) == [(TRIP, "elsewhere")]
        assert store.expired([], now=NOW, limit=9) == []
        assert len(store.list().items) == 6

    def test_what_lives_never_expires(self, open_store: OpenStore) -> None:
        store = open_store()
        for status in ("Running", "Paused", "Anything"):
            create(store, record(status, status=status, expires_at=NOW - HOUR))
        create(store, record("parked", status="Finished", expires_at=NOW - HOUR))
        store.park(ORDER, "parked", revision(store, "parked"), "cannot be read")
        assert store.expired([ORDER], now=NOW, limit=9) == []

    def test_expiry_follows_each_save(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record(status="Finished", expires_at=NOW))
        at = save(store, record(status="Finished", expires_at=NOW + HOUR), at)
        assert store.expired([ORDER], now=NOW, limit=9) == []
        save(store, record(status="Finished", expires_at=NOW - HOUR), at)
        assert ids(store.expired([ORDER], now=NOW, limit=9)) == ["o-1"]

    def test_pruning_forgets_the_old_entries_of_the_ended(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record("ended"), entries(1, 2))
        at = save(store, record("ended", updated_at=NOW + SECOND), at, entries(3))
        save(store, record("ended", status="Finished", updated_at=NOW + 2 * SECOND), at, entries(4))
        create(store, record("alive"), entries(1))
        create(store, record("ended", TRIP, status="Finished"), entries(1))
        assert store.prune_history([ORDER], before=NOW + 2 * SECOND) == 2
        assert [numbers(store, "ended"), numbers(store, "alive"), numbers(store, "ended", TRIP)] == [[4], [1], [1]]
        assert store.prune_history([ORDER], before=NOW + 2 * SECOND) == 0
        assert store.prune_history([], before=NOW + HOUR, live=True) == 0
        assert store.prune_history([ORDER], before=NOW + SECOND, live=True) == 1
        assert [numbers(store, "ended"), numbers(store, "alive")] == [[4], []]
        assert len(store.list().items) == 3

    def test_pruning_stops_at_its_limit(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record(), entries(1))
        for number in range(2, 6):
            at = save(store, record(status="Finished"), at, entries(number))
        assert store.prune_history([ORDER], before=NOW + SECOND, limit=2) == 2
        assert store.prune_history([ORDER], before=NOW + SECOND, limit=2) == 2
        assert len(numbers(store)) == 1
        assert store.prune_history([ORDER], before=NOW + SECOND, limit=2) == 1
        assert numbers(store) == []

    def test_a_page_goes_on_over_what_was_pruned(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record(), entries(1, 2))
        save(store, record(status="Finished", updated_at=NOW + HOUR), at, entries(3, 4))
        first = store.history(ORDER, "o-1", page_size=1)
        store.prune_history([ORDER], before=NOW + HOUR)
        rest = store.history(ORDER, "o-1", page_token=first.next_page_token)
        assert [entry["n"] for entry in rest.entries] == [3, 4]
