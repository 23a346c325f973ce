"""A server process of the shop, and requests to it as bytes on a socket."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

ROOT = Path(__file__).parents[2]
SECONDS = 30.0
"""Until a test gives up on a server: only a hang meets it, however busy the machine is."""


@dataclass(frozen=True)
class Reply:
    """What a server has answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return from_json(self.body)


class Line:
    """One connection that is kept open."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")

    def ask(self, method: str, path: str, body: Any = ..., **headers: str) -> Reply:
        self.send(method, path, body, **headers)
        return self.read()

    def send(self, method: str, path: str, body: Any = ..., **headers: str) -> None:
        raw = b"" if body is ... else to_json(body)
        said = {"Host": "localhost", "Content-Length": str(len(raw))}
        if raw:
            said["Content-Type"] = "application/json"
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items()), "", ""]
        self.socket.sendall("\r\n".join(lines).encode("latin-1") + raw)

    def read(self) -> Reply:
        """Read the next reply; `ConnectionError` if there is none."""
        first = self._file.readline()
        if not first:
            raise ConnectionError("the server has closed the connection")
        headers: dict[str, str] = {}
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        status = int(first.split()[1])
        length = 0 if status in (204, 304) else int(headers.get("content-length", 0))
        body = self._file.read(length)
        if len(body) < length:
            raise ConnectionError("the server has closed the connection in the middle")
        return Reply(status, headers, body)

    def close(self) -> None:
        self._file.close()
        self.socket.close()


class Served:
    """The shop, served by a process of its own on the store at *url*."""

    def __init__(self, url: str, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.http.shop", url, *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: list[Line] = []
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            _, said = self.process.communicate(timeout=SECONDS)
            raise AssertionError(f"the server has not begun:\n{said}")
        self.port = int(self.url.rpartition(":")[2])

    def line(self) -> Line:
        """A connection, closed with the server if nobody closes it before."""
        line = Line(self.port)
        self._lines.append(line)
        return line

    def ask(self, method: str, path: str, body: Any = ..., **headers: str) -> Reply:
        line = self.line()
        try:
            return line.ask(method, path, body, **headers)
        finally:
            line.close()

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Wait for its end; give the exit code and what it has said to stderr."""
        _, said = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, said

    def kill(self) -> None:
        for line in self._lines:
            line.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=SECONDS)

    @property
    def threads(self) -> int:
        """How many threads the process has."""
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    @property
    def sockets(self) -> int:
        """How many sockets the process has open."""
        with os.scandir(f"/proc/{self.process.pid}/fd") as files:
            return sum(_leads_to(file.path).startswith("socket:") for file in files)


def _leads_to(file: str) -> str:
    """What the open *file* is; nothing if it was closed meanwhile."""
    try:
        return str(Path(file).readlink())
    except FileNotFoundError:
        return ""
