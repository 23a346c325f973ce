"""The server's clock, told without asking it: this process's monotonic clock, set by what the server last said."""

import logging
import time
from datetime import UTC, datetime
from typing import Final

from asyncflow import limits

LOG = logging.getLogger(__name__)

# How old what is known may be before the next call asks again: the clocks of two hosts drift by far less in a minute
# than a round trip takes.
FRESH_SECONDS: Final = 60.0


class ServerClock:
    """Keeps what the server said its time was; `now` is its time at present, and never asks."""

    def __init__(self, name: str) -> None:
        self._name = name
        # What is added to the monotonic clock, and by how much that may be wrong; None: nothing is known yet.
        self._offset = 0.0
        self._doubt: float | None = None
        self._last = 0.0
        self._heard_at = float("-inf")

    @property
    def stale(self) -> bool:
        """Whether the server should be asked again."""
        return time.monotonic() - self._heard_at > FRESH_SECONDS

    def note(self, asked: float, answered: float, server: float) -> None:
        """Take in that the server's clock stood at *server* (seconds since 1970) between two monotonic instants."""
        doubt = (answered - asked) / 2
        offset = server - (asked + answered) / 2
        self._heard_at = answered
        before, doubt_before = self._offset, self._doubt
        # Within what a round trip leaves open nothing has moved, and a quicker answer knows better.
        if doubt_before is None or doubt <= doubt_before or abs(offset - before) > doubt + doubt_before:
            self._offset, self._doubt = offset, doubt
        if doubt_before is None:
            self._report(server - time.time(), "differs from that of this host")
        else:
            self._report(self._offset - before, "has jumped")

    def _report(self, seconds: float, what: str) -> None:
        if abs(seconds) > limits.CLOCK_SKEW_SECONDS:
            LOG.warning("%s: the server's clock %s by %.1f s; it is the server's that counts", self._name, what, seconds)

    def now(self) -> datetime:
        """Return the server's time, in UTC; it does not go back, unless the server's clock was set back for good."""
        instant, last = time.monotonic() + self._offset, self._last
        if instant < last < instant + limits.CLOCK_SKEW_SECONDS:
            instant = last
        else:
            self._last = instant
        return datetime.fromtimestamp(instant, UTC)
