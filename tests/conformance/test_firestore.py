"""The Firestore store keeps the contract, and asks nothing that its indexes do not serve."""

from collections.abc import Iterator
from itertools import compress, product
from typing import Any

import pytest

from runner.stores import open_store
from runner.stores.base import Store, Write
from runner.stores.filters import matches, parse_filter
from runner.stores.firestore_calls import FirestoreCalls
from runner.stores.firestore_indexes import indexes_of
from tests.conformance.indexing import Indexes
from tests.conformance.promises import OpenStore
from tests.conformance.records import NOW, ORDER, SECOND, TRIP, listed, record
from tests.conformance.suite import StoreConformance
from tests.servers.firestore import COLLECTION, SERVER, firestore_url

__all__ = ["firestore_url"]


# By these the suite looks for instances.
LABELS = ("a", "customer", "even", "it's", "nobody", "size", "vip")
INDEXES = Indexes(indexes_of(COLLECTION, LABELS))


@SERVER
class TestFirestoreStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def served_by_an_index(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Look at each query of each test: the emulator would answer it without an index too."""
        query = FirestoreCalls.query

        def look(calls: FirestoreCalls, asked: Any, parent: str = "") -> list[Any]:
            fault = INDEXES.fault(asked)
            assert fault is None, fault
            return query(calls, asked, parent)

        monkeypatch.setattr(FirestoreCalls, "query", look)

    @pytest.fixture
    def open_store(self, firestore_url: str) -> Iterator[OpenStore]:
        opened: list[Store] = []

        def open_one() -> Store:
            opened.append(open_store(firestore_url))
            return opened[-1]

        yield open_one
        for store in opened:
            store.close()

    @pytest.mark.parametrize("names", [None, [ORDER], [ORDER, TRIP], ["Nobody", TRIP]])
    def test_every_question_that_is_not_refused_is_served(self, open_store: OpenStore, names: list[str] | None) -> None:
        store = open_store()
        everything = [
            record(f"i-{number}", workflow, status=status, created_at=NOW + number % 5 * SECOND, labels={"size": size, "vip": vip})
            for number, (workflow, status, size, vip) in enumerate(
                product((ORDER, TRIP, "Other"), ("Running", "Failed"), (1, 2), (True, False))
            )
        ]
        store.commit([Write(one, None) for one in everything])
        parts = ("status = Failed", "labels.size = 2", "labels.vip = true", f"created_at >= {NOW + SECOND:%Y-%m-%dT%H:%M:%S.%fZ}")
        for chosen in product((True, False), repeat=len(parts)):
            text = " AND ".join(compress(parts, chosen))
            comparisons = parse_filter(text, store.filterable, "suite")
            expected = [
                (one.created_at, one.id)
                for one in everything
                if (names is None or one.workflow in names)
                and matches(
                    comparisons,
                    status=one.status,
                    created_at=one.created_at,
                    updated_at=one.updated_at,
                    labels=one.labels,
                    state=one.state,
                )
            ]
            assert listed(store, names, filter=text, page_size=5) == [name for _, name in sorted(expected, reverse=True)], text
