"""The SQLite store keeps the contract."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.stores.base import Store
from runner.stores.sqlite import SqliteStore
from tests.conformance.promises import OpenStore
from tests.conformance.suite import StoreConformance


class TestSqliteStore(StoreConformance):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Iterator[OpenStore]:
        opened: list[Store] = []

        def open_one() -> Store:
            opened.append(SqliteStore(tmp_path / "store.db"))
            return opened[-1]

        yield open_one
        for store in opened:
            store.close()
