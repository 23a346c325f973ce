"""The same random operations on a Postgres store and on a plain dictionary."""

import os
from typing import ClassVar

import pytest
from hypothesis import settings

from runner.stores.base import Store
from runner.stores.postgres import PostgresStore
from tests.property.test_store_machine import StoreMachine
from tests.servers.postgres import PostgresCluster, postgres

__all__ = ["postgres"]

pytestmark = [pytest.mark.server("postgres"), pytest.mark.slow]


class PostgresMachine(StoreMachine):
    cluster: ClassVar[PostgresCluster]

    def __init__(self) -> None:
        self.schema = f"m{os.urandom(6).hex()}"
        super().__init__()

    def open_handle(self) -> Store:
        return PostgresStore(f"{self.cluster.url('postgres')}?schema={self.schema}")

    def teardown(self) -> None:
        super().teardown()
        self.cluster.execute(f"DROP SCHEMA {self.schema} CASCADE")


@pytest.fixture(autouse=True)
def cluster(postgres: PostgresCluster) -> None:
    PostgresMachine.cluster = postgres


# Each example makes a schema and some connections, which takes as long as its forty operations.
EXAMPLES = max(10, settings().max_examples // 8)
PostgresMachine.TestCase.settings = settings(settings(), max_examples=EXAMPLES, stateful_step_count=40)
TestPostgres = PostgresMachine.TestCase
