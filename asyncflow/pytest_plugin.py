"""The pytest fixture `simulate`: `def test_order(simulate): sim = simulate(PizzaOrder())`."""

from __future__ import annotations

from typing import cast

import pytest

from asyncflow.testing import Simulate
from asyncflow.testing import simulate as _simulate


@pytest.fixture
def simulate() -> Simulate:
    """Give `asyncflow.testing.simulate`."""
    return cast("Simulate", _simulate)
