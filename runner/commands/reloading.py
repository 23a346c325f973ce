"""`dev` with reload: a parent that watches the sources, and a child that serves and is started anew after a change."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from watchfiles import PythonFilter, watch

STOP_SECONDS: Final = 5.0
"""How long a child may take to end before it is killed: what its steps lose by that goes on at once in the next one."""
LOOK_MILLISECONDS: Final = 300
"""How often the parent looks whether its child still lives."""


class Reloader:
    """Keeps a child process running that is never older than the sources.

    Args:
        command: What the child is.
        folders: Whose Python files (and pyproject.toml) are watched, with all below.
        say: Tells whoever looks on what happens.
    """

    def __init__(self, command: Sequence[str], folders: Sequence[Path], say: Callable[[str], None]) -> None:
        self._command = list(command)
        self._folders = folders
        self._say = say
        self._child: subprocess.Popen[bytes] | None = None
        self._missed = False

    def run(self) -> None:
        """Serve until this process is told to stop."""
        signal.signal(signal.SIGTERM, _interrupt)
        self._begin()
        try:
            changes = watch(
                *self._folders,
                watch_filter=PythonFilter(extra_extensions=("pyproject.toml",)),
                rust_timeout=LOOK_MILLISECONDS,
                yield_on_timeout=True,
            )
            for changed in changes:
                if changed:
                    self._say(f"{_named(sorted(path for _, path in changed))} changed: starting anew")
                    self._end()
                    self._begin()
                else:
                    self._look()
        except KeyboardInterrupt:
            pass
        finally:
            self._end()

    def _begin(self) -> None:
        self._missed = False
        self._child = subprocess.Popen(self._command)  # noqa: S603 - this very program

    def _look(self) -> None:
        """Say it once when the child has ended by itself."""
        if self._child is not None and not self._missed and self._child.poll() is not None:
            self._missed = True
            self._say(f"the server has ended (exit code {self._child.returncode}): waiting for a change of the sources")

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None or child.poll() is not None:
            return
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        except KeyboardInterrupt:  # somebody is in a hurry
            child.kill()
            with contextlib.suppress(KeyboardInterrupt):
                child.wait()


def _interrupt(number: int, frame: object) -> None:  # noqa: ARG001
    raise KeyboardInterrupt


def _named(paths: Sequence[str]) -> str:
    first = Path(paths[0]).name
    return first if len(paths) == 1 else f"{first} and {len(paths) - 1} more files"


def child_command(arguments: Sequence[str]) -> list[str]:
    """This program with other arguments. `-P`: a module in the current folder must not hide our packages."""
    return [sys.executable, "-P", "-m", "runner.cli", *arguments]
