"""A proxy before a gRPC server that cuts connections at chosen requests: before the server hears of it, or before its answer.

It reads the frames of HTTP/2, as far as to know where a request and where an answer begins; what is in them it does not read.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from types import TracebackType
from typing import Final, Self, TypeAlias

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD_BYTES: Final = 9
_HEADERS: Final = 1
_CHUNK: Final = 65_536


class Cut(Enum):
    """Where a request is cut off, with all others that are on their way over that connection."""

    BEFORE = "the server never hears of it"
    AFTER = "the server has done it, its answer is lost"
    SILENCE = "the server has done it, its answer does not come, and the connection stays"


# Says for the n-th request since the beginning, from 1 on, whether it is cut.
Plan: TypeAlias = Callable[[int], Cut | None]


class Proxy:
    """Listens on `host`, HOST:PORT, for connections to the server at *upstream*; cuts by its `plan`, at first nothing."""

    def __init__(self, upstream: str) -> None:
        name, _, port = upstream.rpartition(":")
        self._upstream = (name, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.plan: Plan = lambda number: None
        self.requests = 0
        """How many requests have come so far."""
        self.cuts = 0
        """How many of them were cut."""
        self.away = False
        """It takes connections, and closes them at once."""
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut_next(self, *cuts: Cut | None) -> None:
        """Cut the next requests so, one after another (None: not), and then no more."""
        first = self.requests + 1
        self.plan = lambda number: cuts[number - first] if first <= number < first + len(cuts) else None

    def go_away(self) -> None:
        """Cut all that is open, and take no more until `away` is False."""
        self.away = True
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            _shut(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _shut(self._listener)
        self._listener.close()
        self.go_away()
        for thread in self._threads:
            thread.join()

    def fate(self) -> Cut | None:
        """Count a request, and say whether it is cut."""
        with self._lock:
            self.requests += 1
            cut = self.plan(self.requests)
            self.cuts += cut is not None
            return cut

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.away:
                client.close()
                continue
            server = socket.create_connection(self._upstream)
            with self._lock:
                self._open |= {client, server}
            thread = threading.Thread(target=self._serve, args=(client, server), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        pair = _Pair(self, client, server)
        down = threading.Thread(target=pair.down, daemon=True)
        down.start()
        pair.up()
        down.join()
        with self._lock:
            self._open -= {client, server}
        client.close()
        server.close()


class _Pair:
    """A connection of a client, and the one to the server that belongs to it: the end of one is the end of both."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._doomed: dict[int, Cut] = {}
        """Streams whose answer is not to come."""

    def up(self) -> None:
        """Carry what the client says."""
        known: set[int] = set()
        with self._ending():
            self._server.sendall(_read(self._client, len(_PREFACE)))
            for kind, stream, frame in _frames(self._client):
                if kind == _HEADERS and stream not in known:
                    known.add(stream)
                    cut = self._proxy.fate()
                    if cut is Cut.BEFORE:
                        return
                    if cut is not None:
                        self._doomed[stream] = cut
                self._server.sendall(frame)

    def down(self) -> None:
        """Carry what the server says."""
        with self._ending():
            for kind, stream, frame in _frames(self._server):
                cut = self._doomed.get(stream)
                if cut is Cut.AFTER and kind == _HEADERS:
                    return
                if cut is not Cut.SILENCE:
                    self._client.sendall(frame)

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            with contextlib.suppress(OSError):
                yield
        finally:
            _shut(self._client)
            _shut(self._server)


def _frames(connection: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    """Give each frame with its kind and its stream, until the connection ends."""
    while True:
        head = _read(connection, _HEAD_BYTES)
        length = int.from_bytes(head[:3], "big")
        yield head[3], int.from_bytes(head[5:9], "big") & 0x7FFF_FFFF, head + _read(connection, length)


def _read(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = connection.recv(min(size - len(content), _CHUNK))
        if not part:
            raise ConnectionError("the connection has ended")
        content += part
    return content


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
