"""A gate in the way of an action: tests wait until actions stand at it, and let them through."""

import asyncio
from concurrent.futures import Future
from threading import Condition
from typing import Final

PATIENCE: Final = 30.0
"""Seconds until a test gives up on a gate: only a hang meets it, however busy the machine is."""


class Gate:
    """Holds actions, sync and async ones, until it is opened."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._open: Future[None] = Future()
        self.here = 0
        """How many actions stand at the gate."""
        self.most = 0
        """How many have stood there at once."""
        self.came = 0
        """How many have come so far."""

    def __enter__(self) -> None:
        with self._changed:
            self.here += 1
            self.came += 1
            self.most = max(self.most, self.here)
            self._changed.notify_all()

    def __exit__(self, *exc: object) -> None:
        with self._changed:
            self.here -= 1
            self._changed.notify_all()

    def hold(self) -> None:
        """Stand here, in a sync action, until the gate is open."""
        with self:
            self._open.result(PATIENCE)

    async def hold_async(self) -> None:
        """Stand here, in an async action, until the gate is open or the action is cancelled."""
        with self:
            await asyncio.shield(asyncio.wrap_future(self._open))

    def open(self) -> None:
        """Let through who stands here and who comes."""
        if not self._open.done():
            self._open.set_result(None)

    def wait(self, *, came: int = 0, here: int | None = None) -> None:
        """Wait until *came* actions have come in all, and exactly *here* stand at the gate."""

        def fits() -> bool:
            return self.came >= came and (here is None or self.here == here)

        with self._changed:
            assert self._changed.wait_for(fits, PATIENCE), f"{self.came} came, {self.here} are here"

    def pause(self, seconds: float = 0.005) -> bool:
        """Rest a moment, in a sync action that looks around meanwhile; True once the gate is open."""
        try:
            self._open.result(seconds)
        except TimeoutError:
            return False
        return True
