"""Promises about due work, about what cannot be read, and about what other processes have done."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from asyncflow import limits
from runner.stores.base import Conflict, Write
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
    listed,
    numbers,
    read,
    record,
    revision,
    save,
)

HANDOUT = timedelta(seconds=limits.DUE_HANDOUT_SECONDS)
MICROSECOND = timedelta(microseconds=1)


class DuePromises(StorePromises):
    def test_due_is_what_has_come_the_longest_overdue_first(self, open_store: OpenStore) -> None:
        store = open_store()
        for name, due_at in (("now", NOW), ("late", NOW - HOUR), ("next", NOW + MICROSECOND), ("never", None)):
            create(store, record(name, due_at=due_at))
        create(store, record("later", due_at=NOW - SECOND))
        assert store.due([ORDER], now=NOW, limit=9) == [(ORDER, "late"), (ORDER, "later"), (ORDER, "now")]

    def test_due_is_of_the_workflows_asked_for(self, open_store: OpenStore) -> None:
        store = open_store()
        create(store, record("o-1", due_at=NOW - SECOND))
        create(store, record("t-1", TRIP, due_at=NOW - HOUR))
        create(store, record("x-1", "Other", due_at=NOW - HOUR))
        assert store.due([], now=NOW, limit=9) == []
        assert store.due(["Nobody"], now=NOW, limit=9) == []
        assert ids(store.due({ORDER, TRIP}, now=NOW, limit=9)) == ["t-1", "o-1"]
        assert ids(store.due(["Other"], now=NOW, limit=9)) == ["x-1"]

    def test_due_gives_at_most_the_limit(self, open_store: OpenStore) -> None:
        store = open_store()
        for number in range(5):
            create(store, record(f"o-{number}", ORDER if number % 2 else TRIP, due_at=NOW + number * SECOND))
        assert ids(store.due([ORDER, TRIP], now=NOW + HOUR, limit=2)) == ["o-0", "o-1"]
        assert store.due([ORDER, TRIP], now=NOW + HOUR, limit=0) == []
        if store.hands_out_once:
            assert ids(store.due([ORDER, TRIP], now=NOW + HOUR, limit=9)) == ["o-2", "o-3", "o-4"]

    def test_due_follows_each_save(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record(due_at=NOW))
        at = save(store, record(due_at=NOW + HOUR), at)
        assert store.due([ORDER], now=NOW, limit=9) == []
        at = save(store, record(due_at=None), at)
        assert store.due([ORDER], now=NOW + 9 * HOUR, limit=9) == []
        save(store, record(due_at=NOW - HOUR), at)
        assert ids(open_store().due([ORDER], now=NOW, limit=9)) == ["o-1"]

    def test_ended_instances_are_due_for_their_deletion(self, open_store: OpenStore) -> None:
        store = open_store()
        create(store, record(status="Finished", due_at=NOW, expires_at=NOW))
        assert ids(store.due([ORDER], now=NOW, limit=9)) == ["o-1"]

    def test_what_was_handed_out_is_due_again_later_and_nothing_else_has_changed(self, open_store: OpenStore) -> None:
        store, other = open_store(), open_store()
        at = create(store, record(due_at=NOW))
        assert ids(store.due([ORDER], now=NOW, limit=9, process="host-1")) == ["o-1"]
        if store.hands_out_once:
            assert other.due([ORDER], now=NOW + HANDOUT - MICROSECOND, limit=9) == []
        assert ids(other.due([ORDER], now=NOW + HANDOUT, limit=9)) == ["o-1"]
        assert read(store) == record(due_at=NOW)
        assert revision(store) == at
        save(store, record(rev=2), at)

    def test_a_save_makes_it_due_at_once_again(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record(due_at=NOW))
        store.due([ORDER], now=NOW, limit=9, process="host-1")
        save(store, record(due_at=NOW, rev=2), at)
        assert ids(store.due([ORDER], now=NOW, limit=9)) == ["o-1"]

    def test_no_two_workers_get_the_same(self, open_store: OpenStore) -> None:
        handles = [open_store() for _ in range(4)]
        first = {name: create(handles[0], record(name, due_at=NOW)) for name in (f"o-{number}" for number in range(40))}
        start = threading.Barrier(4)

        def work(number: int) -> list[str]:
            got: list[str] = []
            start.wait()
            for _ in range(10):
                found = handles[number].due([ORDER], now=NOW, limit=5, process=f"host-{number}")
                got += ids(found)
                if not handles[number].hands_out_once:  # then it stays due until somebody saves it
                    handles[number].commit([Write(record(name, rev=2), first[name]) for name in ids(found)])
            return got

        with ThreadPoolExecutor(4) as pool:
            got = [name for part in pool.map(work, range(4)) for name in part]
        assert set(got) == {f"o-{number}" for number in range(40)}
        if handles[0].hands_out_once:
            assert len(got) == 40

    def test_next_due_is_the_first_instant_of_all(self, open_store: OpenStore) -> None:
        store = open_store()
        assert store.next_due([ORDER]) is None
        create(store, record("o-1"))
        assert store.next_due([ORDER]) is None
        create(store, record("o-2", due_at=NOW + HOUR))
        create(store, record("o-3", due_at=NOW + SECOND))
        create(store, record("t-1", TRIP, due_at=NOW))
        assert store.next_due([ORDER]) == NOW + SECOND
        assert store.next_due([ORDER, TRIP]) == NOW
        assert store.next_due([]) is None
        store.delete(TRIP, "t-1", revision(store, "t-1", TRIP))
        assert open_store().next_due([TRIP, ORDER]) == NOW + SECOND

    def test_what_was_handed_out_is_next_due_in_its_time(self, open_store: OpenStore) -> None:
        store = open_store()
        create(store, record(due_at=NOW))
        store.due([ORDER], now=NOW, limit=9)
        assert store.next_due([ORDER]) == (NOW + HANDOUT if store.hands_out_once else NOW)


class UnreadablePromises(StorePromises):
    def test_parking_marks_the_columns_alone(self, open_store: OpenStore) -> None:
        store = open_store()
        whole = record(due_at=NOW, document=b"\xffno JSON", state=b"\xfe", holders=frozenset(("host-1",)))
        at = create(store, whole, entries(1))
        assert store.park(ORDER, "o-1", at, "state does not fit: paid is no number")
        stored = open_store().get(ORDER, "o-1")
        assert stored is not None
        assert (stored.reason, stored.record.status) == ("state does not fit: paid is no number", "Paused")
        assert (stored.record.document, stored.record.state) == (b"\xffno JSON", b"\xfe")
        assert stored.record.due_at is None
        assert stored.record.holders == {"host-1"}
        assert stored.record.rev == 1
        assert numbers(store) == [1]
        assert store.due([ORDER], now=NOW + HOUR, limit=9) == []
        assert store.next_due([ORDER]) is None

    def test_parking_again_changes_the_reason(self, open_store: OpenStore) -> None:
        store = open_store()
        create(store, record())
        assert store.park(ORDER, "o-1", revision(store), "first")
        assert store.park(ORDER, "o-1", revision(store), "second")
        stored = store.get(ORDER, "o-1")
        assert stored is not None
        assert stored.reason == "second"

    def test_a_save_clears_the_mark_and_the_tries(self, open_store: OpenStore) -> None:
        store = open_store()
        create(store, record(due_at=NOW))
        assert store.defer(ORDER, "o-1", revision(store), until=NOW + HOUR)
        assert store.park(ORDER, "o-1", revision(store), "why")
        save(store, record(rev=2, due_at=NOW + HOUR), revision(store))
        stored = store.get(ORDER, "o-1")
        assert stored is not None
        assert (stored.record, stored.reason, stored.tries) == (record(rev=2, due_at=NOW + HOUR), None, 0)
        assert store.unfit([ORDER]) == []
        assert store.next_due([ORDER]) == NOW + HOUR
        assert listed(store, status="Running") == ["o-1"]

    def test_only_what_was_read_is_marked(self, open_store: OpenStore) -> None:
        store = open_store()
        stale = create(store, record())
        last = save(store, record(rev=2, due_at=NOW), stale)
        assert not store.park(ORDER, "o-1", stale, "why")
        assert not store.defer(ORDER, "o-1", stale, until=NOW + HOUR)
        assert not store.park(ORDER, "o-2", last, "why")
        stored = store.get(ORDER, "o-1")
        assert stored is not None
        assert (stored.record, stored.revision) == (record(rev=2, due_at=NOW), last)
        assert (stored.reason, stored.tries) == (None, 0)
        assert ids(store.due([ORDER], now=NOW, limit=9)) == ["o-1"]

    def test_deferring_counts_and_makes_it_due_then(self, open_store: OpenStore) -> None:
        store = open_store()
        whole = record(due_at=NOW, status="Running", document=b"\xff", holders=frozenset(("host-1",)))
        create(store, whole)
        for tries in (1, 2, 3):
            assert store.defer(ORDER, "o-1", revision(store), until=NOW + tries * HOUR)
            stored = open_store().get(ORDER, "o-1")
            assert stored is not None
            assert (stored.record, stored.reason, stored.tries) == (whole, None, tries)
        assert store.next_due([ORDER]) == NOW + 3 * HOUR
        assert store.due([ORDER], now=NOW + 3 * HOUR - MICROSECOND, limit=9) == []
        assert ids(store.due([ORDER], now=NOW + 3 * HOUR, limit=9)) == ["o-1"]

    def test_unfit_are_the_unplaced_the_deferred_and_the_parked(self, open_store: OpenStore) -> None:
        store = open_store()
        for name in ("fine", "deferred", "parked"):
            create(store, record(name))
        create(store, record("unplaced", unplaced=True))
        create(store, record("elsewhere", TRIP, unplaced=True))
        store.defer(ORDER, "deferred", revision(store, "deferred"), until=NOW)
        store.park(ORDER, "parked", revision(store, "parked"), "why")
        assert sorted(ids(open_store().unfit([ORDER]))) == ["deferred", "parked", "unplaced"]
        assert store.unfit([TRIP]) == [(TRIP, "elsewhere")]
        assert store.unfit([]) == []
        for name in ("deferred", "parked", "unplaced"):
            save(store, record(name), revision(store, name))
        assert store.unfit([ORDER]) == []

    def test_a_save_decided_before_the_mark_conflicts_or_clears_it(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record())
        store.park(ORDER, "o-1", at, "why")
        outcome = store.commit([Write(record(rev=2), at)])[0]
        stored = store.get(ORDER, "o-1")
        assert stored is not None
        assert (stored.reason, stored.record.rev) == (("why", 1) if outcome == Conflict() else (None, 2))


class ChangePromises(StorePromises):
    def test_a_change_is_noticed_whoever_made_it(self, open_store: OpenStore) -> None:
        mine, other = open_store(), open_store()
        seen = [mine.changed()]
        for write in (
            lambda: create(mine, record()),
            lambda: save(other, record(rev=2, due_at=NOW), revision(other)),
            lambda: other.commit([Write(record("o-2"), None), Write(record(), None)]),
            lambda: other.park(ORDER, "o-1", revision(other), "why"),
            lambda: other.defer(ORDER, "o-2", revision(other, "o-2"), until=NOW),
            lambda: other.delete(ORDER, "o-2", revision(other, "o-2")),
        ):
            write()
            seen.append(mine.changed())
        assert len(set(seen)) == len(seen)

    def test_without_a_change_there_is_none(self, open_store: OpenStore) -> None:
        mine, other = open_store(), open_store()
        create(mine, record(due_at=NOW + HOUR))
        before = mine.changed()
        other.get(ORDER, "o-1")
        other.list()
        assert other.due([ORDER], now=NOW, limit=9) == []
        mine.next_due([ORDER])
        assert mine.changed() == before or not mine.knows_processes

    def test_the_clock_is_in_utc_and_goes_on(self, open_store: OpenStore) -> None:
        store = open_store()
        first, second = store.now(), store.now()
        assert first.utcoffset() == timedelta(0)
        assert first <= second
