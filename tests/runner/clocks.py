"""A clock that stands still unless a test moves it."""

from datetime import UTC, datetime, timedelta


class Clock:
    """The time of Runners under test."""

    def __init__(self) -> None:
        self._now = datetime(2024, 2, 28, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> None:
        self._now += by
