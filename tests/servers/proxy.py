"""A TCP proxy of the tests' own, which loses what a network may lose: a request, an answer, a connection, or its voice."""

import contextlib
import select
import socket
import threading
from typing import Final, Literal, Self

CHUNK: Final = 65_536
Cut = Literal["before", "after"]


class Proxy:
    """Passes on what comes to `port` to a port of this host."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._cut: tuple[bytes, Cut] | None = None
        self._silent = threading.Event()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._closed = False
        self.cuts = 0
        """How many connections were cut because of their words."""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, marker: bytes, when: Cut) -> None:
        """Cut the next connection that sends *marker*: before the server has heard it, or after it has answered."""
        with self._lock:
            self._cut = marker, when

    def fall_silent(self) -> None:
        """Pass on nothing any more, and keep all connections."""
        self._silent.set()

    def speak(self) -> None:
        """Pass on again, also what came meanwhile."""
        self._silent.clear()

    def cut_all(self) -> None:
        """Cut all connections there are."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._end(pair)

    def close(self) -> None:
        """Let nobody in, and cut all connections."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listening.close()
        self.cut_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._pairs.add((client, server))
            threading.Thread(target=self._pass_on, args=((client, server),), daemon=True).start()

    def _pass_on(self, pair: tuple[socket.socket, socket.socket]) -> None:
        client, server = pair
        answered_last = False
        try:
            while True:
                ready, _, _ = select.select([client, server], [], [], 0.05)
                if self._silent.is_set():
                    continue
                for one in ready:
                    data = one.recv(CHUNK)
                    if not data or (answered_last and one is server):
                        return
                    if one is client and (when := self._cuts(data)) is not None:
                        if when == "before":
                            return
                        answered_last = True
                    (server if one is client else client).sendall(data)
        except (OSError, ValueError):
            return  # one of them is gone
        finally:
            self._end(pair)

    def _cuts(self, data: bytes) -> Cut | None:
        with self._lock:
            if self._cut is None or self._cut[0] not in data:
                return None
            (_, when), self._cut = self._cut, None
            self.cuts += 1
            return when

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            self._pairs.discard(pair)
        for one in pair:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
