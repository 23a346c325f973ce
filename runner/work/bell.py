"""Who waits in this process for something of an instance, and how he is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from asyncflow.activation import Answer
from runner.forks import renew_after_fork
from runner.stores.base import Key

RING_ALL_MAX: Final = 200
"""If more listen, nobody is rung for writes of another process: they would only look, so they poll (rule 28)."""

Heard = Callable[[], None]
Told = Callable[[Answer], None]


class Bell:
    """Rings for an instance when this process has saved it; hands answers to the senders that wait for them."""

    def __init__(self) -> None:
        self.begin_anew()
        renew_after_fork(self)

    def begin_anew(self) -> None:
        """Forget who waits in another process, the parent."""
        self._lock = threading.Lock()
        self._listeners: dict[Key, list[Heard]] = {}
        self._mourners: dict[Key, list[Heard]] = {}
        self._answers: dict[str, list[Told]] = {}

    def listen(self, key: Key, heard: Heard, *, end_only: bool = False) -> None:
        """Call *heard* after every save of *key*, or only when it has ended, until `leave`. It must not block."""
        with self._lock:
            (self._mourners if end_only else self._listeners).setdefault(key, []).append(heard)

    def leave(self, key: Key, heard: Heard) -> None:
        """Stop listening."""
        with self._lock:
            for waiting in (self._listeners, self._mourners):
                listeners = waiting.get(key, [])
                if heard in listeners:
                    listeners.remove(heard)
                if not listeners:
                    waiting.pop(key, None)

    def ring(self, key: Key, *, ended: bool) -> None:
        """Tell those who listen to *key*, which was just saved."""
        if self._listeners or (ended and self._mourners):
            with self._lock:
                listeners = list(self._listeners.get(key, ()))
                if ended:
                    listeners += self._mourners.get(key, ())
            for heard in listeners:
                heard()

    def ring_all(self) -> None:
        """Tell everybody: another process has written, nobody knows what."""
        with self._lock:
            waiting = [*self._listeners.values(), *self._mourners.values()]
            listeners = [heard for each in waiting for heard in each]
        if len(listeners) > RING_ALL_MAX:
            return
        for heard in listeners:
            heard()

    def expect(self, message: str, told: Told) -> None:
        """Hand the answer of *message* to *told* when it is given, until `forget`. It must not block."""
        with self._lock:
            self._answers.setdefault(message, []).append(told)

    def forget(self, message: str, told: Told) -> None:
        """Hand it to *told* no more; others who wait for the same answer stay."""
        with self._lock:
            waiting = self._answers.get(message, [])
            if told in waiting:
                waiting.remove(told)
            if not waiting:
                self._answers.pop(message, None)

    def tell(self, answers: dict[str, Answer]) -> None:
        """Hand out answers that were just saved."""
        if not self._answers:
            return
        for message, answer in answers.items():
            with self._lock:
                waiting = list(self._answers.get(message, ()))
            for told in waiting:
                told(answer)
