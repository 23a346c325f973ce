"""Who waits in this process for something of an instance, and how he is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from asyncflow.activation import Answer
from runner.stores.base import Key

Heard = Callable[[], None]


class Bell:
    """Rings for an instance when this process has saved it; hands answers to the senders that wait for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[Key, list[Heard]] = {}
        self._mourners: dict[Key, list[Heard]] = {}
        self._answers: dict[str, Callable[[Answer], None]] = {}

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
            listeners = [heard for waiting in (self._listeners, self._mourners) for each in waiting.values() for heard in each]
        for heard in listeners:
            heard()

    def expect(self, message: str, told: Callable[[Answer], None]) -> None:
        """Hand the answer of *message* to *told* when it is given."""
        with self._lock:
            self._answers[message] = told

    def forget(self, message: str) -> None:
        """Nobody waits for that answer any more."""
        with self._lock:
            self._answers.pop(message, None)

    def tell(self, answers: dict[str, Answer]) -> None:
        """Hand out answers that were just saved."""
        if self._answers:
            for message, answer in answers.items():
                told = self._answers.get(message)
                if told is not None:
                    told(answer)


class Patience:
    """A wait of one thread for a bell, an answer, or the end of its patience; no busy loop."""

    def __init__(self) -> None:
        self._heard = threading.Event()
        self.value: Any = None

    def hear(self) -> None:
        """Something has happened."""
        self._heard.set()

    def take(self, value: Any) -> None:
        """This is what was waited for."""
        self.value = value
        self._heard.set()

    def wait(self, seconds: float) -> bool:
        """Wait; True when something was heard."""
        heard = self._heard.wait(seconds)
        self._heard.clear()
        return heard
