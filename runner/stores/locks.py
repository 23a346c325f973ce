"""Which processes live, told by locks that the operating system frees when a process ends in whatever way (rule 15).

Each process has a file of its name, which it keeps locked; a name whose file is free, or missing, is dead.
"""

import contextlib
import fcntl
import os
import secrets
import weakref
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from asyncflow.errors import AlreadyExists, Unavailable
from runner.stores.encoding import check_process

# Taken by whoever adds or removes files, so that no file is removed between its lock and its name.
_GUARD: Final = ".guard"


class ProcessLocks:
    """The processes of one store on one host, in one folder, which is made when the first one enters."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}
        _all_locks.add(self)

    def enter(self, process: str) -> None:
        """Lock the name *process* until `leave`, or until this process ends.

        Raises:
            AlreadyExists: A living process has it, this one perhaps.
            Malformed: It is no name.
            Unavailable: The folder cannot be written.
        """
        check_process(process)
        try:
            with self._guarded():
                self._remove_dead()
                self._held[process] = self._lock_new(process)
        except OSError as error:
            raise Unavailable(f"{self._folder}: cannot keep the lock of a process there: {error.strerror}") from error

    def dead(self, processes: Collection[str]) -> set[str]:
        """Return those of *processes* whose lock nobody holds."""
        return {process for process in processes if not self._lives(self._folder / process)}

    def leave(self) -> None:
        """Give back all names entered here."""
        if not self._held:
            return
        with contextlib.suppress(OSError), self._guarded():
            for process in self._held:
                (self._folder / process).unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Close the files without a word to others: in a child made by fork they are its parent's."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        self._folder.mkdir(exist_ok=True)
        descriptor = os.open(self._folder / _GUARD, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _lock_new(self, process: str) -> int:
        """Make the file under another name first: it is locked before anybody can see it under its own."""
        hidden = self._folder / f".{secrets.token_hex(8)}"
        descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.link(hidden, self._folder / process)
        except FileExistsError:
            os.close(descriptor)
            raise AlreadyExists(f"a living process is named {process!r}: take another, random name") from None
        except BaseException:
            os.close(descriptor)
            raise
        finally:
            hidden.unlink()
        return descriptor

    def _remove_dead(self) -> None:
        for file in self._folder.iterdir():
            if file.name != _GUARD and not self._lives(file):
                file.unlink(missing_ok=True)

    @staticmethod
    def _lives(file: Path) -> bool:
        try:
            descriptor = os.open(file, os.O_RDWR)
        except FileNotFoundError:
            return False
        except OSError:
            return True  # one that may not be looked at is left alone
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


_all_locks: "weakref.WeakSet[ProcessLocks]" = weakref.WeakSet()


def _forget_in_child() -> None:
    """Let go of the parent's files: a lock lives as long as any copy of its file is open, and a child outlives."""
    for locks in list(_all_locks):
        locks.forget()


os.register_at_fork(after_in_child=_forget_in_child)
