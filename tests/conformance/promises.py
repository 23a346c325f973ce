"""What each part of the contract's suite is made of."""

from collections.abc import Callable
from typing import TypeAlias

import pytest

from runner.stores.base import Store

OpenStore: TypeAlias = Callable[[], Store]


class StorePromises:
    """A part of the contract of `runner.stores.base.Store`, one test for each promise.

    Two handles stand for two processes. A handle that is left lying, and another one opened, stands for a crash.
    """

    @pytest.fixture
    def open_store(self) -> OpenStore:
        """Return a function that opens one more handle on the same, at first empty, store."""
        raise NotImplementedError
