"""Waiting for what another process does, which rings no bell here."""

import time
from collections.abc import Callable
from threading import Event
from typing import Final

from tests.runner.gates import PATIENCE

LOOK_SECONDS: Final = 0.02


def until(fits: Callable[[], bool]) -> None:
    """Look again and again until it fits."""
    rest, end = Event(), time.monotonic() + PATIENCE
    while not fits():
        assert time.monotonic() < end, "it does not come to that"
        rest.wait(LOOK_SECONDS)
