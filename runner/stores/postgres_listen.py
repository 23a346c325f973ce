"""Listening to what other handles make due, on a connection and in a thread of its own."""

import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import psycopg

from asyncflow.errors import Unavailable
from runner.stores.postgres_link import Link
from runner.stores.postgres_server import PostgresServer

LOG = logging.getLogger(__name__)

# What has been said within this time is told once: a busy store would say it a thousand times a second.
REST_SECONDS: Final = 0.02
# How soon a lost connection is made again, doubled each time up to the second.
AGAIN_SECONDS: Final = 0.2
AGAIN_SECONDS_MAX: Final = 5.0


class Listener:
    """Calls *heard* when another handle than *origin* has said something on the channel, or may have; says things there itself."""

    def __init__(self, server: PostgresServer, origin: str, heard: Callable[[], None]) -> None:
        self._server = server
        self._origin = origin
        self._heard = heard
        self._closed = threading.Event()
        self._unsaid = False
        # What ends a wait. No pipe: who writes to one just closed may write into another file of its number.
        self._woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="asyncflow-listener", daemon=True)
        self._thread.start()

    def say(self) -> None:
        """Let other handles hear that something is due, soon and without waiting."""
        if not self._unsaid:
            self._unsaid = True
            with suppress(OSError):  # closed just now, or there is enough in it already
                self._wake.send(b".")

    def close(self) -> None:
        """Say what is to be said, and stop listening."""
        if not self._closed.is_set():
            self._closed.set()
            with suppress(OSError):
                self._wake.send(b".")
            self._thread.join()
            self.leave()

    def leave(self) -> None:
        """Let go of what is this process's own: all there is in a child made by fork, where the parent listens on."""
        self._wake.close()
        self._woken.close()

    def _run(self) -> None:
        again = AGAIN_SECONDS
        while not self._closed.is_set():
            began = time.monotonic()
            try:
                self._listen()
            except (Unavailable, psycopg.Error) as error:
                if time.monotonic() - began > AGAIN_SECONDS_MAX:
                    again = AGAIN_SECONDS
                LOG.warning("not listening to %s, trying again: %s", self._server.place.name, error)
                self._closed.wait(again)
                again = min(again * 2, AGAIN_SECONDS_MAX)

    def _listen(self) -> None:
        link = self._server.connect()
        try:
            link.execute(f"LISTEN {self._server.place.channel}")
            self._heard()  # something may have been said while nobody listened
            while True:
                self._say_unsaid(link)
                if self._closed.is_set():
                    return
                if not self._unsaid:
                    self._wait(link)
                payloads = [notification.payload for notification in link.notifies(timeout=0)]
                if any(payload != self._origin for payload in payloads):
                    self._heard()
                self._closed.wait(REST_SECONDS)
        finally:
            with suppress(psycopg.Error):
                link.close()

    def _say_unsaid(self, link: Link) -> None:
        if self._unsaid:
            self._unsaid = False
            try:
                link.execute("SELECT pg_notify($1, $2)", (self._server.place.channel, self._origin))
            except psycopg.Error:
                self._unsaid = True
                raise

    def _wait(self, link: Link) -> None:
        """Wait until the server has said something, or somebody here wants something."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        poll.register(link.pgconn.socket, select.POLLIN)
        if any(descriptor == self._woken.fileno() for descriptor, _ in poll.poll()):
            self._woken.recv(4_096)
