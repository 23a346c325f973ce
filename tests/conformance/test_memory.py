"""The memory store keeps the contract."""

import pytest

from runner.stores.memory import MemoryRows, MemoryStore
from tests.conformance.promises import OpenStore
from tests.conformance.suite import StoreConformance


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def open_store(self) -> OpenStore:
        rows = MemoryRows()
        return lambda: MemoryStore(rows)
