"""What a worker knows of one instance at work."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from runner.stores.base import Key
from runner.work.activity import Gathered, Request


class Seat:
    """One activity and what it waits for."""

    __slots__ = ("attempts", "fed", "gathered", "gathering", "key", "looking", "loop", "timer", "woken")

    def __init__(self, key: Key, loop: Generator[Request, Any, None], *, looking: bool) -> None:
        self.key = key
        self.loop = loop
        self.looking = looking
        """It was not due: this is a look whether this code can read it (rule 23)."""
        self.attempts = 0
        self.fed = False
        """It was given a place that had become free: what it leaves is for the next."""
        self.gathered = Gathered()
        self.gathering = False
        self.timer: asyncio.TimerHandle | None = None
        self.woken = False
        """A wake-up came while it was busy: it has to look once more before it leaves."""
