"""Promises about stores over a network: much in one round trip, commits that nobody waits for, hearing of others."""

import select
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from runner.stores.base import Conflict, Exists, Failed, Outcomes, Saved, Store, Write
from tests.conformance.promises import OpenStore, StorePromises
from tests.conformance.records import HOUR, ORDER, TRIP, create, entries, numbers, read, record, revision, save, saved

HEARING_SECONDS = 30.0
"""Only a store that never tells meets it."""


def land(store: Store, writes: Sequence[Write]) -> Outcomes:
    """Commit as an event loop does; by `commit` where the store has no other way."""
    flight = store.begin_commit(writes)
    if flight is None:
        return store.commit(writes)
    outcomes = None
    while outcomes is None:
        poll = select.poll()
        poll.register(flight.descriptor, select.POLLIN | (select.POLLOUT if flight.wants_write else 0))
        assert poll.poll(flight.patience * 1_000)
        outcomes = flight.advance()
    return outcomes


class FarPromises(StorePromises):
    def test_many_are_read_as_one_by_one(self, open_store: OpenStore) -> None:
        store = open_store()
        for name in ("o-1", "o-2", "o-3"):
            create(store, record(name, state=name.encode(), labels={"a": 1}))
        create(store, record("o-1", TRIP, state=b"trip"))
        store.park(ORDER, "o-2", revision(store, "o-2"), "why")
        keys = [(ORDER, "o-3"), (ORDER, "nobody"), (TRIP, "o-1"), (ORDER, "o-2"), (ORDER, "o-3"), ("Nobody", "o-1")]
        assert list(store.get_many(keys)) == [store.get(*key) for key in keys]
        assert list(store.get_many(keys[:1])) == [store.get(ORDER, "o-3")]
        assert list(store.get_many([])) == []

    def test_a_commit_on_its_way_is_a_commit(self, open_store: OpenStore) -> None:
        store, other = open_store(), open_store()
        stale = create(store, record("old"), entries(1))
        at = save(store, record("old", rev=2), stale)
        outcomes = land(
            store,
            [
                Write(record("new", state=b"1", labels={"a": 1}), None, entries(1)),
                Write(record("old", rev=3), at, entries(2)),
                Write(record("old-2"), None),
            ],
        )
        assert [type(outcome) for outcome in outcomes] == [Saved, Saved, Saved]
        assert (read(other, "new").state, read(other, "old").rev) == (b"1", 3)
        assert (numbers(other, "new"), numbers(other, "old")) == ([1], [1, 2])
        assert revision(other, "old") == saved(outcomes[1])
        outcomes = land(store, [Write(record("old", rev=9), stale, entries(9)), Write(record("new"), None, entries(9))])
        assert outcomes == [Conflict(), Exists()]
        assert numbers(other, "old") == [1, 2]

    def test_a_commit_on_its_way_stops_no_neighbour(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record())
        writes = [
            Write(record(rev=2), at),
            Write(record("bad"), None, [{"n": True}]),
            Write(record(rev=3), at),
            Write(record("o-2"), None),
        ]
        assert [type(outcome) for outcome in land(store, writes)] == [Saved, Failed, Conflict, Saved]
        assert read(store).rev == 2

    def test_commits_on_their_way_lose_nothing(self, open_store: OpenStore) -> None:
        handles = [open_store(), open_store()]
        create(handles[0], record(rev=0))
        start = threading.Barrier(2)

        def count_up(number: int) -> None:
            store = handles[number]
            start.wait()
            for _ in range(25):
                saved_it = False
                while not saved_it:
                    stored = store.get(ORDER, "o-1")
                    assert stored is not None
                    changed = replace(stored.record, rev=stored.record.rev + 1)
                    saved_it = isinstance(land(store, [Write(changed, stored.revision)])[0], Saved)

        threads = [threading.Thread(target=count_up, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert read(handles[0]).rev == 50

    def test_what_another_handle_makes_due_is_heard(self, open_store: OpenStore) -> None:
        listening, other = open_store(), open_store()
        heard = threading.Event()
        if not listening.listen(heard.set):
            assert not heard.is_set()
            return
        assert heard.wait(HEARING_SECONDS), "what was missed before is not known, so one looks once"
        now = other.now()
        at = create(other, record("later", due_at=now + HOUR))
        ways: list[Callable[[], object]] = [
            lambda: create(other, record("new", due_at=now)),
            lambda: save(other, record("later", due_at=now + timedelta(seconds=1)), at),
            lambda: other.defer(ORDER, "new", revision(other, "new"), until=now),
            lambda: land(other, [Write(record("flown", due_at=now), None)]),
        ]
        for number, make_due in enumerate(ways):
            heard.clear()
            make_due()
            assert heard.wait(HEARING_SECONDS), number
        listening.close()
