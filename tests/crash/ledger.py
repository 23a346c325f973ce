"""What really happened, by the word of those who did it: lines in a file beside the database, each flushed to the disk.

Several processes append to it, and are killed while they do. A line is one write, which a kill cuts off where it crosses from one
page of the file to the next; so each begins a line of its own, and one that was cut off was never noted: its process did nothing
after it.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened. `at` is of a clock that all processes of a host share, in seconds."""

    what: str
    """up, wants, started, told, run, ran, ended, down."""
    who: str
    """The process: the name of its life."""
    at: float
    id: str = ""
    name: str = ""
    """Of the event's key, or of what a step does: one name for each visit."""
    key: str = ""
    """The idempotency key that an attempt ran under."""
    attempt: int = 0
    value: Any = None


class Ledger:
    """Appends to the file at *path* as *who*."""

    def __init__(self, path: Path, who: str) -> None:
        self._who = who
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, what: str, **fields: Any) -> None:
        """Append one line and flush it."""
        line = {"what": what, "who": self._who, "at": time.monotonic(), **fields}
        os.write(self._file, b"\n" + json.dumps(line).encode() + b"\n")
        os.fdatasync(self._file)


def read(path: Path) -> Iterator[Line]:
    """Give the lines, the oldest first."""
    if path.exists():
        with path.open() as file:
            for text in file:
                if text.strip():
                    try:
                        fields = json.loads(text)
                    except ValueError:
                        continue  # cut off
                    yield Line(**fields)
