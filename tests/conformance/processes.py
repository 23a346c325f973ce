"""Promises about processes: who lives, and what the dead have left behind."""

import pytest

from asyncflow.errors import AlreadyExists, Malformed, Unavailable
from tests.conformance.promises import OpenStore, StorePromises
from tests.conformance.records import (
    HOUR,
    NOW,
    ORDER,
    TRIP,
    create,
    ids,
    read,
    record,
    revision,
    save,
)


class ProcessPromises(StorePromises):
    def test_a_process_lives_until_its_handle_is_closed(self, open_store: OpenStore) -> None:
        mine, other = open_store(), open_store()
        mine.enter("host-1")
        mine.enter("host-2")
        other.enter("host-3")
        everybody = {"host-1", "host-2", "host-3", "nobody"}
        if not mine.knows_processes:
            assert mine.dead(everybody) == set()
            return
        assert mine.dead(everybody) == {"nobody"}
        assert other.dead(everybody) == {"nobody"}
        assert other.dead([]) == set()
        mine.close()
        assert other.dead(everybody) == {"host-1", "host-2", "nobody"}
        assert open_store().dead(everybody) == {"host-1", "host-2", "nobody"}

    def test_a_living_process_keeps_its_name(self, open_store: OpenStore) -> None:
        mine, other = open_store(), open_store()
        mine.enter("host-1")
        if not mine.knows_processes:
            return other.enter("host-1")
        for store in (mine, other):
            with pytest.raises(AlreadyExists):
                store.enter("host-1")
        assert other.dead({"host-1"}) == set()
        mine.close()
        other.enter("host-1")
        assert other.dead({"host-1"}) == set()
        return None

    def test_a_name_is_a_word(self, open_store: OpenStore) -> None:
        store = open_store()
        for name in ("", "two words", "../up", ".hidden", "a/b", "a\nb", "ä", "x" * 129):
            with pytest.raises(Malformed):
                store.enter(name)
        store.enter("x" * 128)
        assert store.dead({"x" * 128}) == set()

    def test_a_closed_handle_takes_no_process(self, open_store: OpenStore) -> None:
        store = open_store()
        store.close()
        with pytest.raises(Unavailable):
            store.enter("host-1")

    def test_leases_are_found_by_their_process(self, open_store: OpenStore) -> None:
        store = open_store()
        create(store, record("o-1", holders=frozenset(("host-1",))))
        create(store, record("o-2", holders=frozenset(("host-1", "host-2"))))
        create(store, record("t-1", TRIP, holders=frozenset(("host-2",))))
        create(store, record("o-3"))
        if not store.finds_holders:
            assert (store.held_by("host-1"), store.processes()) == ([], set())
            return
        assert sorted(store.held_by("host-1")) == [(ORDER, "o-1"), (ORDER, "o-2")]
        assert sorted(open_store().held_by("host-2")) == [(ORDER, "o-2"), (TRIP, "t-1")]
        assert store.held_by("host") == []
        assert store.processes() == {"host-1", "host-2"}

    def test_leases_follow_each_save(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record(holders=frozenset(("host-1", "host-2"))))
        at = save(store, record(holders=frozenset(("host-2", "host-3"))), at)
        assert read(store).holders == {"host-2", "host-3"}
        if not store.finds_holders:
            assert store.processes() == set()
            return
        assert [ids(store.held_by(name)) for name in ("host-1", "host-2", "host-3")] == [[], ["o-1"], ["o-1"]]
        assert store.processes() == {"host-2", "host-3"}
        save(store, record(), at)
        assert store.processes() == set()
        assert store.held_by("host-3") == []

    def test_what_was_handed_out_is_found_by_its_process(self, open_store: OpenStore) -> None:
        store, other = open_store(), open_store()
        create(store, record("o-1", due_at=NOW))
        create(store, record("o-2", due_at=NOW))
        create(store, record("o-3", due_at=NOW + HOUR, holders=frozenset(("host-1",))))
        store.due([ORDER], now=NOW, limit=9, process="host-1")
        if not store.hands_out_once:
            assert ids(other.held_by("host-1")) == (["o-3"] if other.finds_holders else [])
            return
        assert sorted(ids(other.held_by("host-1"))) == ["o-1", "o-2", "o-3"]
        assert other.processes() == {"host-1"}
        save(other, record("o-1", due_at=NOW), revision(other, "o-1"))
        other.defer(ORDER, "o-2", revision(other, "o-2"), until=NOW)
        assert ids(store.held_by("host-1")) == ["o-3"]

    def test_what_was_handed_out_to_nobody_in_particular_is_nobodys(self, open_store: OpenStore) -> None:
        store = open_store()
        create(store, record(due_at=NOW))
        store.due([ORDER], now=NOW, limit=9)
        assert store.processes() == set()
        assert store.held_by("") == []
