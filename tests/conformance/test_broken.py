"""The suite catches each broken driver, by the test that is named beside it."""

import pytest

from runner.stores.memory import MemoryRows, MemoryStore
from tests.conformance.broken import CAUGHT_BY
from tests.conformance.suite import StoreConformance


@pytest.mark.xfail(strict=True, raises=(AssertionError, pytest.fail.Exception))
@pytest.mark.parametrize("driver", CAUGHT_BY, ids=lambda driver: driver.__name__)
def test_a_broken_driver_passes(driver: type[MemoryStore]) -> None:
    rows = MemoryRows()
    getattr(StoreConformance(), CAUGHT_BY[driver])(lambda: driver(rows))


@pytest.mark.parametrize("name", sorted(set(CAUGHT_BY.values())))
def test_a_sound_driver_passes(name: str) -> None:
    rows = MemoryRows()
    getattr(StoreConformance(), name)(lambda: MemoryStore(rows))
