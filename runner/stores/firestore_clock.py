"""The server's clock, as far as it is known: what its answers said, carried on by this host's monotonic clock."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from asyncflow import limits
from runner.stores.encoding import micros, moment, utc_now

LOG: Final = logging.getLogger(__name__)

_SKEW_MAX: Final = timedelta(seconds=limits.CLOCK_SKEW_SECONDS)


class ServerClock:
    """What time it is on the server; safe in every thread, and never goes back.

    An answer was made between its question and its arrival, so its time bounds the difference of the two clocks from both
    sides. A slow answer bounds it loosely and changes nothing; quick ones keep the clock within their own short way.

    Args:
        host: The host's clock, which is only compared: where it is far off, that is said once.
        monotonic: What carries the time on between two answers, in seconds.
    """

    def __init__(self, *, host: Callable[[], datetime] = utc_now, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic = monotonic
        self._host = host
        self._lock = threading.Lock()
        self._ahead: int | None = None
        """Microseconds that the server's time since 1970 is ahead of the monotonic clock."""
        self._last = 0
        self._skew_told = False

    def hear(self, said: int, asked: float) -> None:
        """Take note that an answer of just now says *said* (microseconds since 1970), to a question *asked* then."""
        heard = self.monotonic()
        least, most = said - int(heard * 1e6), said - int(asked * 1e6)
        with self._lock:
            self._ahead = least if self._ahead is None else min(max(self._ahead, least), most)
        self._compare(said, heard - asked)

    def now(self) -> datetime | None:
        """Return the server's time; None before its first answer."""
        with self._lock:
            if self._ahead is None:
                return None
            self._last = max(self._last, self._ahead + int(self.monotonic() * 1e6))
            return moment(self._last)

    def _compare(self, said: int, took: float) -> None:
        skew = timedelta(microseconds=micros(self._host()) - said)
        # The answer may be as old as its way was long.
        if self._skew_told or -_SKEW_MAX <= skew <= _SKEW_MAX + timedelta(seconds=took):
            return
        self._skew_told = True
        LOG.warning(
            "the clock of this host is %.1f s %s Firestore's: instants are taken from Firestore, but set this clock right (NTP)",
            abs(skew.total_seconds()),
            "ahead of" if skew > timedelta() else "behind",
        )
