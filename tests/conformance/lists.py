"""Promises about lists: their order, their pages, their filters."""

import re
import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from asyncflow.errors import Malformed
from runner.stores.base import Store, Summary
from runner.stores.filters import parse_filter
from tests.conformance.promises import OpenStore, StorePromises
from tests.conformance.records import (
    HOUR,
    NOW,
    ORDER,
    SECOND,
    TRIP,
    create,
    listed,
    read,
    record,
    revision,
    save,
)

# What the filters look at: id, columns.
POPULATION: dict[str, dict[str, Any]] = {
    "ann": {"labels": {"customer": "ann", "size": 2, "vip": True}, "state": b'{"n":1,"in":{"a b":[{"x":"y"}]}}'},
    "bob": {"labels": {"customer": "bob", "size": 2.5, "vip": False}, "state": b'{"n":1.0,"t":true,"z":null}'},
    "cy": {"labels": {"customer": "cy", "size": 10, "vip": 1}, "state": b'{"n":"1","t":false,"0":5}'},
    "dee": {"labels": {"customer": None, "size": "2"}, "state": b'{"n":-3,"in":[7,8],"s":"\xc3\xa4"}'},
    "eve": {"labels": {}, "state": b"no JSON {", "status": "Failed", "updated_at": NOW + HOUR},
}
FILTERS: list[tuple[str, str]] = [
    ("", "ann bob cy dee eve"),
    ("  ", "ann bob cy dee eve"),
    ("status = Failed", "eve"),
    ('status = "Failed"', "eve"),
    ("status != 'Failed'", "ann bob cy dee"),
    ("status=Failed AND status=Running", ""),
    ('updated_at > "2026-01-31T09:30:00Z"', "eve"),
    ("updated_at>2026-01-31T09:30:00Z", "eve"),
    ('updated_at <= "2026-01-31T10:30:00+01:00"', "ann bob cy dee"),
    ('created_at = "2026-01-31T09:00:00.123456Z"', "ann"),
    ('created_at != "2026-01-31T09:00:00.123456Z"', "bob cy dee eve"),
    ('created_at >= "2026-01-31T09:00:02.123456Z" AND created_at < "2026-01-31T09:00:04.123456Z"', "cy dee"),
    ("labels.customer = ann", "ann"),
    ('labels.customer = "bob"', "bob"),
    ('labels."customer" = "bob"', "bob"),
    ("labels.customer != ann", "bob cy"),
    ("labels.customer >= bob", "bob cy"),
    ("labels.customer < bob", "ann"),
    ("labels.customer = null", "dee"),
    ("labels.customer != null", "ann bob cy"),
    ("labels.nobody != null", ""),
    ("labels.nobody = null", ""),
    ("labels.nobody != x", ""),
    ("labels.size = 2", "ann"),
    ("labels.size = 2.0", "ann"),
    ('labels.size = "2"', "dee"),
    ("labels.size != 2", "bob cy dee"),
    ("labels.size > 2", "bob cy"),
    ("labels.size <= 2.5", "ann bob"),
    ("labels.vip = true", "ann"),
    ("labels.vip = 1", "cy"),
    ("labels.vip != true", "bob cy"),
    ("labels.vip = false", "bob"),
    ("labels.size = 2 AND labels.vip = true AND labels.customer = ann", "ann"),
    ("labels.size = 2 AND labels.vip = false", ""),
]
STATE_FILTERS: list[tuple[str, str]] = [
    ("state.n = 1", "ann bob"),
    ('state.n = "1"', "cy"),
    ("state.n != 1", "cy dee"),
    ("state.n < 1", "dee"),
    ("state.n > -4 AND state.n <= 1e0", "ann bob dee"),
    ("state.t = true", "bob"),
    ("state.t != true", "cy"),
    ("state.z = null", "bob"),
    ("state.z != null", ""),
    ("state.n != null", "ann bob cy dee"),
    ('state.in."a b".0.x = y', "ann"),
    ('state.in."a b".1.x = y', ""),
    ("state.in.1 = 8", "dee"),
    ("state.in.1 > 7", "dee"),
    ("state.in = 1", ""),
    ("state.in != 1", "ann dee"),
    ('state."0" = 5', "cy"),
    ("state.0 = 5", ""),
    ('state.s = "ä"', "dee"),
    ('state.s > "z"', "dee"),
    ("state.n.x = 1", ""),
    ("state.n = 1 AND labels.customer = bob", "bob"),
]
UNREADABLE = [
    "nonsense",
    "status",
    "status =",
    "= Failed",
    "status Failed",
    "status = Failed OR status = Running",
    "status = Failed status = Running",
    "status = Failed AND",
    "AND status = Failed",
    "NOT status = Failed",
    "-status = Failed",
    "(status = Failed)",
    "status = (Failed)",
    "status : Failed",
    "status > Failed",
    "status = null",
    "status = 1",
    "status.x = 1",
    "id = o-1",
    "uid = 1",
    "workflow = PizzaOrder",
    "labels = 1",
    "labels.a.b = 1",
    "labels. = 1",
    'labels."a = 1',
    "state = 1",
    "created_at = yesterday",
    "created_at > 5",
    'created_at > "2026-02-31T00:00:00Z"',
    'created_at > "2026-01-31T00:00:00"',
    "labels.vip < true",
    "labels.vip >= null",
    'labels.customer = "ann',
    "labels.size = 9007199254740992",
    "labels.size = 1e999",
    "labels.customer = ann'; DROP TABLE instances; --",
    "labels.a = 1 AND " * 30 + "labels.a = 1",
    "labels.customer = " + "a" * 3_000,
]


EVERYTHING = frozenset(("status", "created_at", "updated_at", "labels", "state"))


def served(store: Store, text: str) -> bool:
    """Tell whether the store says that it can filter so; what it cannot it must refuse by name."""
    comparisons = parse_filter(text, EVERYTHING, "suite")
    return all(one.field in store.filterable and (one.field, one.operator) not in store.unserved for one in comparisons)


def populate(store: Store) -> None:
    for number, (name, columns) in enumerate(POPULATION.items()):
        create(store, record(name, created_at=NOW + number * SECOND, **columns))


class ListPromises(StorePromises):
    def test_the_last_created_come_first(self, open_store: OpenStore) -> None:
        store = open_store()
        for name, second in (("o-2", 2), ("o-9", 0), ("o-1", 1)):
            create(store, record(name, created_at=NOW + second * SECOND))
        save(store, record("o-9", updated_at=NOW + HOUR, rev=2), revision(store, "o-9"))
        assert listed(store, [ORDER]) == ["o-2", "o-1", "o-9"]

    def test_of_one_instant_the_largest_id_and_workflow_come_first(self, open_store: OpenStore) -> None:
        store = open_store()
        for name in ("b", "a", "c", "B"):
            create(store, record(name))
            create(store, record(name, TRIP))
        expected = [(name, workflow) for name in "cbaB" for workflow in (TRIP, ORDER)]
        for size in (1, 2, 3, 50):
            page = store.list(page_size=size)
            found = [*page.items]
            while page.next_page_token:
                page = store.list(page_size=size, page_token=page.next_page_token)
                found += page.items
            assert [(item.id, item.workflow) for item in found] == expected

    def test_only_the_workflows_asked_for_are_listed(self, open_store: OpenStore) -> None:
        store = open_store()
        create(store, record("o-1"))
        create(store, record("t-1", TRIP))
        create(store, record("x-1", "Trip2"))
        assert listed(store, [ORDER]) == ["o-1"]
        assert sorted(listed(store, [ORDER, TRIP, TRIP])) == ["o-1", "t-1"]
        assert sorted(listed(store)) == ["o-1", "t-1", "x-1"]
        assert listed(store, []) == []
        assert listed(store, ["Nobody"]) == []

    def test_a_line_has_all_but_the_state(self, open_store: OpenStore) -> None:
        store = open_store()
        create(store, record(labels={"customer": "ann", "vip": True}, document=b"\xff", updated_at=NOW + HOUR))
        assert store.list().items == (
            Summary(
                workflow=ORDER,
                id="o-1",
                status="Running",
                document=b"\xff",
                created_at=NOW,
                updated_at=NOW + HOUR,
                labels={"customer": "ann", "vip": True},
                reason=None,
            ),
        )

    def test_a_status_is_that_of_the_last_save_or_paused_where_parked(self, open_store: OpenStore) -> None:
        store = open_store()
        for name in ("o-1", "o-2", "o-3"):
            create(store, record(name))
        save(store, record("o-2", status="Finished"), revision(store, "o-2"))
        store.park(ORDER, "o-3", revision(store, "o-3"), "cannot be read")
        assert [listed(store, status=status) for status in ("Running", "Finished", "Paused", "")] == [
            ["o-1"], ["o-2"], ["o-3"], [],
        ]  # fmt: skip
        assert listed(store, status="Finished", filter="status = Running") == []
        assert listed(store, filter="status = Paused") == ["o-3"]
        assert store.list(status="Paused").items[0].reason == "cannot be read"


class PagePromises(StorePromises):
    def test_pages_have_each_instance_once(self, open_store: OpenStore) -> None:
        store = open_store()
        for number in range(7):
            create(store, record(f"o-{number}", created_at=NOW + number // 3 * SECOND, labels={"even": number % 2 == 0}))
        whole = listed(store)
        for size in (1, 2, 3, 6, 7, 8, 1_000):
            pages = list(self.pages(store, size))
            assert [name for page in pages for name in page] == whole
            assert all(len(page) == size for page in pages[:-1])
            assert pages[-1]
        assert listed(store, page_size=2, filter="labels.even = true") == ["o-6", "o-4", "o-2", "o-0"]
        if served(store, "labels.even != true"):
            assert listed(store, page_size=2, filter="labels.even != true") == ["o-5", "o-3", "o-1"]

    @staticmethod
    def pages(store: Store, size: int) -> Iterator[list[str]]:
        page = store.list(page_size=size)
        yield [item.id for item in page.items]
        while page.next_page_token is not None:
            page = store.list(page_size=size, page_token=page.next_page_token)
            yield [item.id for item in page.items]

    def test_an_empty_list_is_one_empty_page(self, open_store: OpenStore) -> None:
        page = open_store().list([ORDER])
        assert (page.items, page.next_page_token) == ((), None)

    def test_what_is_started_saved_or_deleted_meanwhile_moves_nothing(self, open_store: OpenStore) -> None:
        store, other = open_store(), open_store()
        for number in range(6):
            create(store, record(f"o-{number}", created_at=NOW + number * SECOND))
        first = store.list([ORDER], page_size=2)
        assert [item.id for item in first.items] == ["o-5", "o-4"]
        create(other, record("o-6", created_at=NOW + HOUR))
        create(other, record("o-7", created_at=NOW + HOUR))
        other.delete(ORDER, "o-4", revision(other, "o-4"))
        save(other, record("o-3", updated_at=NOW + HOUR), revision(other, "o-3"))
        second = other.list([ORDER], page_size=2, page_token=first.next_page_token)
        assert [item.id for item in second.items] == ["o-3", "o-2"]
        other.delete(ORDER, "o-2", revision(other, "o-2"))
        third = store.list([ORDER], page_size=2, page_token=second.next_page_token)
        assert [item.id for item in third.items] == ["o-1", "o-0"]
        assert third.next_page_token is None

    def test_pages_have_each_instance_once_while_others_write(self, open_store: OpenStore) -> None:
        store, other = open_store(), open_store()
        names = [f"o-{number:02d}" for number in range(20)]
        for number, name in enumerate(names):
            create(store, record(name, created_at=NOW + number % 6 * SECOND))
        done = threading.Event()

        def write() -> int:
            number = 0
            while not done.is_set():
                if number < 100:  # else lists would grow faster than they are read
                    create(other, record(f"new-{number}", created_at=NOW + HOUR + number * SECOND))
                save(other, record(names[number % 20], updated_at=NOW + number * SECOND), revision(other, names[number % 20]))
                number += 1
            return number

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            try:
                found = [[name for page in self.pages(store, 3) for name in page] for _ in range(3)]
            finally:
                done.set()
            assert writing.result()
        for whole in found:
            assert sorted(name for name in whole if name.startswith("o-")) == names
            assert len(set(whole)) == len(whole)

    def test_a_token_belongs_to_its_question(self, open_store: OpenStore) -> None:
        store = open_store()
        for number in range(3):
            create(store, record(f"o-{number}", labels={"a": 1}))
            create(store, record(f"t-{number}", TRIP))
        token = store.list([ORDER, TRIP], page_size=1).next_page_token
        assert token is not None
        assert store.list([TRIP, ORDER], page_size=2, page_token=token).items
        for workflows, status, text in (
            ([ORDER], None, ""),
            (None, None, ""),
            ([ORDER, TRIP], "Running", ""),
            ([ORDER, TRIP], None, "labels.a = 1"),
        ):
            with pytest.raises(Malformed):
                store.list(workflows, status=status, filter=text, page_token=token)
        with pytest.raises(Malformed):
            store.history(ORDER, "o-1", page_token=token)

    def test_what_is_no_token_is_refused(self, open_store: OpenStore) -> None:
        store = open_store()
        for number in range(3):
            create(store, record(f"o-{number}"))
        token = store.list(page_size=1).next_page_token
        assert token is not None
        nonsense = ["", "x", "ä", token[:-3], token + "x", "A" * 10_000]
        nonsense += [urlsafe_b64encode(text).decode() for text in (b"", b"[]", b"{}", b"[1,2]", b"\xff", b"[" * 500)]
        for text in nonsense:
            with pytest.raises(Malformed):
                store.list(page_token=text)

    def test_a_page_has_1_to_1000_lines(self, open_store: OpenStore) -> None:
        store = open_store()
        for size in (0, -1, 1_001):
            with pytest.raises(Malformed):
                store.list(page_size=size)
        assert store.list(page_size=1_000).items == ()


class FilterPromises(StorePromises):
    def test_filters_find_what_fits(self, open_store: OpenStore) -> None:
        store = open_store()
        populate(store)
        questions = [(text, names) for text, names in FILTERS + STATE_FILTERS if served(store, text)]
        found = {text: " ".join(sorted(listed(store, [ORDER], filter=text, page_size=2))) for text, _ in questions}
        assert found == dict(questions)

    def test_filters_find_the_same_through_pages(self, open_store: OpenStore) -> None:
        store = open_store()
        populate(store)
        for text in [text for text, _ in FILTERS if served(store, text)]:
            found = listed(store, filter=text, page_size=1)
            assert found == sorted(found, reverse=True)
            assert found == listed(store, filter=text)

    def test_labels_are_those_of_the_last_save(self, open_store: OpenStore) -> None:
        store = open_store()
        at = create(store, record(labels={"customer": "ann", "size": 1}))
        at = save(store, record(labels={"customer": "bob", "size": 1}), at)
        assert listed(store, filter="labels.customer = ann") == []
        assert listed(store, filter="labels.customer = bob AND labels.size = 1") == ["o-1"]
        at = save(store, record(labels={"customer": True}), at)
        save(store, record(labels={"customer": 1}), at)
        assert listed(store, filter="labels.customer = true") == []
        assert listed(store, filter="labels.size = 1") == []
        assert listed(store, filter="labels.customer = 1") == ["o-1"]
        save(store, record(labels={}), revision(store))
        assert listed(store, filter="labels.customer = 1") == []

    def test_what_cannot_be_read_is_refused(self, open_store: OpenStore) -> None:
        store = open_store()
        populate(store)
        for text in UNREADABLE:
            with pytest.raises(Malformed):
                store.list(filter=text)
        assert len(listed(store)) == len(POPULATION)

    def test_a_field_that_cannot_be_filtered_is_named(self, open_store: OpenStore) -> None:
        store = open_store()
        create(store, record())
        if "state" in store.filterable:
            assert listed(store, filter="state.paid = 0") == []
        else:
            with pytest.raises(Malformed, match=r"state\.paid"):
                store.list(filter="state.paid = 0")
        with pytest.raises(Malformed, match="rev"):
            store.list(filter="rev = 1")

    def test_what_no_index_serves_is_refused_by_name(self, open_store: OpenStore) -> None:
        store = open_store()
        populate(store)
        for text in [text for text, _ in FILTERS + STATE_FILTERS if not served(store, text)]:
            asked = parse_filter(text, EVERYTHING, "suite")
            fields = [re.escape(".".join([one.field, *map(str, one.path)])) for one in asked]
            with pytest.raises(Malformed, match="|".join(fields)):
                store.list([ORDER], filter=text)

    def test_a_value_is_never_read_as_code(self, open_store: OpenStore) -> None:
        store = open_store()
        hostile = ['"); --', "a' OR '1'='1", "$.x", "\\", "%", "_", "NULL", "\x00x", "*"]
        for number, value in enumerate(hostile):
            create(store, record(f"o-{number}", labels={"customer": value, "it's": value}))
        for number, value in enumerate(hostile):
            quoted = value.replace("\\", "\\\\").replace('"', '\\"')
            assert listed(store, filter=f'labels.customer = "{quoted}"') == [f"o-{number}"]
            assert listed(store, filter=f'labels."it\'s" = "{quoted}"') == [f"o-{number}"]
            other = f'labels.customer != "{quoted}"'
            assert not served(store, other) or f"o-{number}" not in listed(store, filter=other)
        assert read(store, "o-0").labels["customer"] == '"); --'

    def test_the_order_holds_under_every_filter(self, open_store: OpenStore) -> None:
        store = open_store()
        populate(store)
        for text in filter(partial(served, store), ("labels.size > 0", "labels.vip = true", "status != x", "status = Running", "")):
            items = store.list(filter=text).items
            assert all(newer.created_at > older.created_at for newer, older in pairwise(items))
