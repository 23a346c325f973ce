"""The Postgres store keeps the contract."""

from collections.abc import Iterator

import pytest

from runner.stores.base import Store
from runner.stores.postgres import PostgresStore
from tests.conformance.promises import OpenStore
from tests.conformance.suite import StoreConformance
from tests.servers.postgres import postgres, postgres_url

__all__ = ["postgres", "postgres_url"]


@pytest.mark.server("postgres")
class TestPostgresStore(StoreConformance):
    @pytest.fixture
    def open_store(self, postgres_url: str) -> Iterator[OpenStore]:
        opened: list[Store] = []

        def open_one() -> Store:
            opened.append(PostgresStore(postgres_url))
            return opened[-1]

        yield open_one
        for store in opened:
            store.close()
