"""Promises about creating, saving, reading and deleting."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from asyncflow.errors import Malformed, TooLarge, Unavailable
from runner.stores.base import RECORD_BYTES_MAX, Conflict, Exists, Failed, Saved, Write
from tests.conformance.promises import OpenStore, StorePromises
from tests.conformance.records import (
    HOUR,
    NOW,
    ORDER,
    SECOND,
    TRIP,
    create,
    entries,
    failed,
    listed,
    numbers,
    read,
    record,
    revision,
    save,
    saved,
)

FULL = record(
    rev=7,
    status="Cancelled",
    due_at=NOW + SECOND,
    expires_at=NOW + HOUR,
    updated_at=NOW + timedelta(microseconds=1),
    labels={"customer": "Ånn", "size": 3, "price": 2.5, "vip": True, "note": None, "gone": False},
    holders=frozenset(("host-1", "host-2")),
    unplaced=True,
)


class SavePromises(StorePromises):
    def test_what_was_created_is_read_as_it_was(self, open_store: OpenStore) -> None:
        store = open_store()
        create(store, FULL)
        assert store.get(ORDER, "o-1") is not None
        assert read(store) == FULL
        types = {"customer": str, "size": int, "price": float, "vip": bool, "note": type(None), "gone": bool}
        assert {name: type(value) for name, value in read(store).labels.items()} == types

    def test_texts_come_back_byte_for_byte(self, open_store: OpenStore) -> None:
        store = open_store()
        for number, text in enumerate((b"", b"\x00\xff\xfe", b'{"a": 1.0}  ', '{"ä":"🍕"}'.encode(), b"[" * 100)):
            create(store, record(f"o-{number}", document=text, state=text))
            assert (read(store, f"o-{number}").document, read(store, f"o-{number}").state) == (text, text)

    def test_times_are_kept_to_the_microsecond_and_read_in_utc(self, open_store: OpenStore) -> None:
        store = open_store()
        tokyo = datetime(2999, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=9)))
        early = datetime(1969, 7, 20, 20, 17, 40, 1, tzinfo=timezone(timedelta(hours=-4)))
        create(store, record(created_at=early, updated_at=tokyo, due_at=tokyo, expires_at=early))
        found = read(store)
        assert (found.created_at, found.updated_at, found.due_at, found.expires_at) == (early, tokyo, tokyo, early)
        assert found.updated_at.utcoffset() == timedelta(0)

    def test_what_is_not_there_is_none(self, open_store: OpenStore) -> None:
        store = open_store()
        create(store, record())
        assert store.get(ORDER, "o-2") is None
        assert store.get(TRIP, "o-1") is None

    def test_many_are_read_as_each_is(self, open_store: OpenStore) -> None:
        store = open_store()
        for name, workflow in (("o-1", ORDER), ("o-2", ORDER), ("o-1", TRIP)):
            create(store, record(name, workflow, state=f"{workflow} {name}".encode()))
        keys = [(TRIP, "o-1"), (ORDER, "o-3"), (ORDER, "o-2"), (ORDER, "o-1"), (TRIP, "o-1")]
        found = store.get_many(keys)
        assert [one is None for one in found] == [False, True, False, False, False]
        assert [*found] == [store.get(*key) for key in keys]
        assert [*store.get_many([])] == []

    def test_one_id_in_two_workflows_are_two_instances(self, open_store: OpenStore) -> None:
        store = open_store()
        create(store, record(state=b"1"))
        create(store, record(workflow=TRIP, state=b"2"))
        assert (read(store).state, read(store, workflow=TRIP).state) == (b"1", b"2")

    def test_a_second_create_of_an_id_changes_nothing(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record(state=b"1"), entries(1))
        assert store.commit([Write(record(state=b"2", labels={"a": 1}), None, entries(2))]) == [Exists()]
        assert read(store) == record(state=b"1")
        assert revision(store) == at
        assert numbers(store) == [1]

    def test_a_save_replaces_the_record(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record())
        save(store, FULL, at)
        assert read(store) == FULL
        save(store, record(), revision(store))
        assert read(store) == record()

    def test_a_save_needs_the_revision_of_the_last_one(self, open_store: OpenStore) -> None:
        store = open_store()
        first = create(store, record(state=b"1"), entries(1))
        second = save(store, record(state=b"2"), first, entries(2))
        assert second != first
        assert revision(store) == second
        assert store.commit([Write(replace(FULL, state=b"3"), first, entries(3))]) == [Conflict()]
        assert read(store) == record(state=b"2")
        assert revision(store) == second
        assert numbers(store) == [1, 2]

    def test_a_save_that_changes_nothing_is_a_save_too(self, open_store: OpenStore) -> None:
        store = open_store()
        first = create(store, record())
        second = save(store, record(), first)
        assert second != first
        assert store.commit([Write(record(rev=2), first)]) == [Conflict()]
        assert read(store) == record()

    def test_a_save_of_what_is_gone_conflicts(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record())
        assert store.delete(ORDER, "o-1", at)
        assert store.commit([Write(record(), at, entries(1))]) == [Conflict()]
        assert store.get(ORDER, "o-1") is None
        assert numbers(store) == []

    def test_a_revision_fits_no_other_instance(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record("o-1"))
        create(store, record("o-2"))
        assert store.commit([Write(record("o-2", state=b"mine"), at)]) == [Conflict()]
        assert read(store, "o-2") == record("o-2")

    def test_uid_and_time_of_creation_stay(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record())
        save(store, record(uid="another", created_at=NOW + HOUR, rev=2), at)
        assert read(store) == record(rev=2)

    def test_no_writes_have_no_answers(self, open_store: OpenStore) -> None:
        assert open_store().commit([]) == []

    def test_a_record_of_the_largest_size_is_kept_and_one_byte_more_refused(self, open_store: OpenStore) -> None:
        store = open_store()
        largest = record(document=b"d" * (RECORD_BYTES_MAX - 10), state=b"s" * 10)
        create(store, largest)
        assert read(store) == largest
        larger = replace(largest, id="o-2", state=b"s" * 11)
        assert isinstance(failed(store.commit([Write(larger, None)])[0]), TooLarge)
        assert store.get(ORDER, "o-2") is None


class BatchPromises(StorePromises):
    def test_each_write_of_a_batch_stands_for_itself(self, open_store: OpenStore) -> None:
        store = open_store()
        stale = create(store, record("old"), entries(1))
        current = save(store, record("old", rev=2), stale, entries(2))
        outcomes = store.commit([
            Write(record("new-1"), None, entries(1)),
            Write(record("old", rev=3), stale, entries(3)),
            Write(record("new-2", document=b"d" * (RECORD_BYTES_MAX + 1)), None, entries(1)),
            Write(record("old", rev=4), current, entries(4)),
            Write(record("new-1", rev=2), None, entries(2)),
            Write(record("new-3"), None, entries(1)),
        ])  # fmt: skip
        assert [type(outcome) for outcome in outcomes] == [Saved, Conflict, Failed, Saved, Exists, Saved]
        assert sorted(listed(store)) == ["new-1", "new-3", "old"]
        assert read(store, "old").rev == 4
        assert (numbers(store, "old"), numbers(store, "new-1"), numbers(store, "new-3")) == ([1, 2, 4], [1], [1])
        assert [revision(store, name) for name in ("new-1", "old", "new-3")] == [saved(outcomes[n]) for n in (0, 3, 5)]

    def test_of_two_writes_with_one_revision_the_first_is_saved(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record())
        writes = [Write(record(rev=number), at, entries(number)) for number in (2, 3, 4)]
        assert [type(outcome) for outcome in store.commit(writes)] == [Saved, Conflict, Conflict]
        assert read(store).rev == 2
        assert numbers(store) == [2]

    def test_of_two_creates_of_one_id_the_first_is_saved(self, open_store: OpenStore) -> None:
        store = open_store()
        outcomes = store.commit([Write(record(rev=number), None, entries(number)) for number in (1, 2)])
        assert [type(outcome) for outcome in outcomes] == [Saved, Exists]
        assert read(store).rev == 1
        assert numbers(store) == [1]

    def test_what_cannot_be_stored_is_refused_alone(self, open_store: OpenStore) -> None:
        store = open_store()
        cyclic: list[Any] = []
        cyclic.append(cyclic)
        bad = [
            Write(record("bad", updated_at=NOW.replace(tzinfo=None)), None),
            Write(record("bad", due_at=NOW.replace(tzinfo=None)), None),
            Write(record("bad", labels={"price": math.nan}), None),
            Write(record("bad", labels={"price": 2**53}), None),
            Write(record("bad", labels={"items": ["a"]}), None),
            Write(record("bad", labels={"customer": "\ud800"}), None),
            Write(record("bad", labels={"\ud800": "ann"}), None),
            Write(record("bad", due_at=datetime.max.replace(tzinfo=timezone(-HOUR))), None),
            Write(record("bad", holders=frozenset(("two words",))), None),
            Write(record("bad"), None, [{"n": 1, "input": object()}]),  # type: ignore[dict-item]
            Write(record("bad"), None, [{"n": 1, "input": cyclic}]),
            Write(record("bad"), None, [{"kind": "step"}]),
            Write(record("bad"), None, [{"n": True}]),
            Write(record("bad"), None, entries(2, 1)),
        ]
        for number, write in enumerate(bad):
            before, after = Write(record(f"before-{number}"), None), Write(record(f"after-{number}"), None)
            outcomes = store.commit([before, write, after])
            assert isinstance(failed(outcomes[1]), Malformed)
            assert [type(outcome) for outcome in outcomes] == [Saved, Failed, Saved]
        assert store.get(ORDER, "bad") is None
        assert len(listed(store)) == 2 * len(bad)

    def test_entries_are_there_exactly_when_their_save_is(self, open_store: OpenStore) -> None:
        store, other = open_store(), open_store()
        at = create(store, record(), entries(1, 2))
        assert numbers(other) == [1, 2]
        save(other, record(rev=2), at, entries(3))
        store.commit([Write(record(rev=2), at, entries(4)), Write(record(), None, entries(5))])
        store.commit([Write(record("o-2", document=b"d" * (RECORD_BYTES_MAX + 1)), None, entries(6))])
        assert numbers(store) == [1, 2, 3]
        assert numbers(store, "o-2") == []


class CrashPromises(StorePromises):
    def test_another_process_sees_a_save_at_once(self, open_store: OpenStore) -> None:
        mine, other = open_store(), open_store()
        assert other.get(ORDER, "o-1") is None
        at = create(mine, record(), entries(1))
        assert read(other) == record()
        assert numbers(other) == [1]
        save(other, record(rev=2), at)
        assert read(mine).rev == 2
        assert revision(mine) == revision(other)

    def test_a_stale_process_loses(self, open_store: OpenStore) -> None:
        mine, other = open_store(), open_store()
        create(mine, record())
        stale = revision(other)
        save(mine, record(rev=2), revision(mine))
        assert other.commit([Write(record(rev=3), stale)]) == [Conflict()]
        assert read(mine).rev == 2

    def test_what_was_acknowledged_survives_a_crash(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record(), entries(1))
        at = save(store, record(rev=2), at, entries(2))
        create(store, record("o-2"))
        after = open_store()  # nothing is asked of the first handle any more, not even its end
        assert read(after).rev == 2
        assert revision(after) == at
        assert numbers(after) == [1, 2]
        assert listed(after) == ["o-2", "o-1"]

    def test_what_was_acknowledged_survives_a_close(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, FULL, entries(1))
        store.close()
        again = open_store()
        assert read(again) == FULL
        assert numbers(again) == [1]
        save(again, record(), at)

    def test_a_closed_handle_is_unavailable(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record())
        store.close()
        store.close()
        assert isinstance(failed(store.commit([Write(record(rev=2), at)])[0]), Unavailable)
        for call in (
            lambda: store.get(ORDER, "o-1"),
            lambda: store.delete(ORDER, "o-1", at),
            store.list,
            lambda: store.history(ORDER, "o-1"),
            lambda: store.due([ORDER], now=NOW, limit=1),
            lambda: store.next_due([ORDER]),
            lambda: store.park(ORDER, "o-1", at, "why"),
            lambda: store.defer(ORDER, "o-1", at, until=NOW),
            lambda: store.unfit([ORDER]),
            lambda: store.held_by("host-1"),
            store.processes,
            lambda: store.dead({"host-1"}),
            lambda: store.expired([ORDER], now=NOW, limit=1),
            lambda: store.prune_history([ORDER], before=NOW),
            store.changed,
        ):
            with pytest.raises(Unavailable):
                call()
        assert read(open_store()) == record()

    def test_no_update_is_lost_between_threads_and_processes(self, open_store: OpenStore) -> None:
        handles = [open_store(), open_store()]
        create(handles[0], record(rev=0))
        start = threading.Barrier(4)

        def count_up(number: int) -> int:
            store, conflicts = handles[number % 2], 0
            start.wait()
            for step in range(25):
                while True:
                    stored = store.get(ORDER, "o-1")
                    assert stored is not None
                    entry = entries(stored.record.rev + 1)
                    changed = replace(stored.record, rev=stored.record.rev + 1, state=f"{number}/{step}".encode())
                    outcome = store.commit([Write(changed, stored.revision, entry)])[0]
                    if isinstance(outcome, Saved):
                        break
                    assert outcome == Conflict()
                    conflicts += 1
            return conflicts

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(count_up, range(4)))
        assert read(handles[1]).rev == 100
        assert numbers(handles[0]) == list(range(1, 101))


class DeletePromises(StorePromises):
    def test_a_deleted_instance_leaves_nothing(self, open_store: OpenStore) -> None:
        store = open_store()
        whole = replace(FULL, due_at=NOW, expires_at=NOW, status="Finished")
        at = create(store, whole, entries(1, 2))
        create(store, record("o-2"))
        assert store.delete(ORDER, "o-1", at)
        assert store.get(ORDER, "o-1") is None
        assert numbers(store) == []
        assert listed(store) == ["o-2"]
        assert listed(store, filter="labels.size = 3") == []
        assert store.held_by("host-1") == []
        assert store.processes() == set()
        assert store.unfit([ORDER]) == []
        assert store.due([ORDER], now=NOW, limit=9) == []
        assert store.expired([ORDER], now=NOW, limit=9) == []
        assert open_store().get(ORDER, "o-1") is None

    def test_a_delete_needs_the_last_revision(self, open_store: OpenStore) -> None:
        store = open_store()
        first = create(store, record(), entries(1))
        second = save(store, record(rev=2), first)
        assert not store.delete(ORDER, "o-1", first)
        assert read(store).rev == 2
        assert numbers(store) == [1]
        assert store.delete(ORDER, "o-1", second)
        assert not store.delete(ORDER, "o-1", second)
        assert not store.delete(ORDER, "o-2", second)

    def test_an_id_used_again_is_another_instance(self, open_store: OpenStore) -> None:
        store = open_store()
        old = create(store, record(state=b"1", labels={"a": 1}), entries(1))
        store.delete(ORDER, "o-1", old)
        new = create(store, record(state=b"2", uid="second", created_at=NOW + HOUR))
        assert numbers(store) == []
        assert read(store) == record(state=b"2", uid="second", created_at=NOW + HOUR)
        assert store.commit([Write(record(state=b"3"), old, entries(9))]) == [Conflict()]
        assert not store.delete(ORDER, "o-1", old)
        assert not store.park(ORDER, "o-1", old, "why")
        assert listed(store, filter="labels.a = 1") == []
        save(store, record(state=b"4"), new)
        assert read(store).uid == "second"

    def test_a_delete_is_seen_by_other_processes(self, open_store: OpenStore) -> None:
        mine, other = open_store(), open_store()
        at = create(mine, record())
        assert listed(other) == ["o-1"]
        assert other.delete(ORDER, "o-1", at)
        assert mine.get(ORDER, "o-1") is None
        assert mine.commit([Write(record(), at)]) == [Conflict()]
