"""One SQLite file: its connections, its transactions, and what becomes of them in a fork or when the disk fails.

All writes of a process go through one connection under one lock, so that its threads never wait for each other in
SQLite's own way, by sleeping. Readers borrow a connection each and never wait for a writer.
"""

import contextlib
import ctypes
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw
from pydantic import JsonValue

from asyncflow import limits
from asyncflow.errors import Unavailable
from runner.stores.sqlite_checks import refuse_corrupt, refuse_network, refuse_unsound_library
from runner.stores.sqlite_errors import BROKEN, ROW_FAULTS, unavailable
from runner.stores.sqlite_schema import ColumnValue, migrate, refuse_foreign

T = TypeVar("T")

# How long a lock of another process is waited for, in seconds: far longer than any commit, far shorter than a lease.
BUSY_SECONDS: Final = 5.0
# Pages in the log before they are copied into the file: 16 MiB. Hot pages are copied once for many saves; reading
# stays quick, and a restart after a crash reads the log in some 20 ms.
CHECKPOINT_PAGES: Final = 4_000
# What the log is cut to when it starts anew, in bytes: it had grown because somebody read for long.
LOG_BYTES_KEPT: Final = 64 * limits.KIB * limits.KIB
# Page cache in KiB. The writer's holds the inner pages of all indexes over a million instances; a reader's is thrown
# away by every commit.
WRITER_CACHE_KIB: Final = 32 * limits.KIB
READER_CACHE_KIB: Final = 2 * limits.KIB
# A larger file is checked beside the work, in a thread: a restart is to go on within 2 s.
CHECK_AT_ONCE_BYTES: Final = 64 * limits.KIB * limits.KIB
# Between two tries where SQLite does not wait by itself.
_TRY_AGAIN_SECONDS: Final = 0.01
# The `details` of an `Unavailable` that came from the commit itself: whether it is in the file shows when it is read.
IN_DOUBT: Final[dict[str, JsonValue]] = {"in_doubt": True}


class SqliteFile:
    """The file at *path*, made if it is missing; `Unavailable` says why it cannot be used.

    Args:
        busy_seconds: How long to wait for other processes' locks.
        vfs: The SQLite VFS to use, for tests of failing disks.
    """

    def __init__(self, path: Path, *, busy_seconds: float = BUSY_SECONDS, vfs: str = "") -> None:
        self.path = Path(os.path.abspath(path))  # noqa: PTH100 (resolve() follows links)
        self._busy_seconds = busy_seconds
        self._vfs = vfs
        self._closed = threading.Event()
        self._broken: Unavailable | None = None
        self._have_nothing_open()
        refuse_unsound_library(apsw.sqlite_lib_version())
        refuse_network(self.path)
        try:
            self._prepare()
        except apsw.Error as error:
            self.close()
            raise unavailable(error, str(self.path)) from error
        except BaseException:
            self.close()
            raise
        _all_files.add(self)

    def _have_nothing_open(self) -> None:
        self._writing = threading.Lock()  # one transaction at a time
        self._writer: apsw.Connection | None = None
        self._idle: deque[apsw.Connection] = deque()  # readers; the last one used has the warmest cache
        self._watching = threading.Lock()
        self._watcher: apsw.Connection | None = None
        self._checker: threading.Thread | None = None
        self._checked: apsw.Connection | None = None

    # -- what the store does with it -----------------------------------------------------------------------------------

    def read(self, sql: str, bindings: Sequence[ColumnValue] = ()) -> list[Any]:
        """Return the rows of one query, as of the last commit of anybody; `Unavailable` if that fails."""
        self.check_open()
        connection = self._borrow_reader()
        try:
            return connection.execute(sql, bindings).fetchall()
        except apsw.Error as error:
            raise self._failure(error) from error
        finally:
            self._idle.append(connection)
            if self._closed.is_set():
                self._close_idle()

    def transact(self, work: Callable[[apsw.Connection], T], *, durable: bool = True) -> T:
        """Do *work* in one transaction that nobody else writes beside, and return when it is durable.

        `durable=False` leaves the flush to the next durable one: a crash of the machine may undo it, nothing else.

        Raises:
            Unavailable: Nothing was changed, unless `details` are `IN_DOUBT`; the driver's error is its cause.

        What else *work* raises leaves nothing changed either.
        """
        with self._writing:
            connection = self._writer_now()
            committing = False
            try:
                if not durable:
                    _flush_commits(connection, False)
                connection.execute("BEGIN IMMEDIATE")
                result = work(connection)
                committing = True
                connection.execute("COMMIT")
            except apsw.Error as error:
                self._roll_back(error)
                if committing and not isinstance(error, apsw.BusyError):
                    raise Unavailable(self._failure(error).message, details=IN_DOUBT) from error
                raise self._failure(error) from error
            except BaseException:
                self._roll_back(None)
                raise
            finally:
                if not durable:
                    self._flush_again()
            return result

    def data_version(self) -> int:
        """Return a number that differs when anybody has committed since; a few microseconds, without the disk."""
        with self._watching:
            self.check_open()
            try:
                if self._watcher is None:
                    self._watcher = self._connect_reader()
                return int(self._watcher.pragma("data_version"))
            except apsw.Error as error:
                raise self._failure(error) from error

    def check_open(self) -> None:
        """Raise `Unavailable` once `close` was called."""
        if self._closed.is_set():
            raise Unavailable(f"{self.path}: the store is closed")

    def close(self) -> None:
        """Close all connections; a transaction under way is waited for, a check of the file is not."""
        self._closed.set()
        while self._checker is not None and self._checker.is_alive():
            checked = self._checked
            if checked is not None:
                with contextlib.suppress(apsw.Error):
                    checked.interrupt()
            # Again and again: an interrupt before its query has begun is lost.
            self._checker.join(_TRY_AGAIN_SECONDS)
        with self._watching:
            if self._watcher is not None:
                _close(self._watcher)
                self._watcher = None
        self._close_idle()
        with self._writing:
            self._discard_writer()

    # -- connections ---------------------------------------------------------------------------------------------------

    def _connect(self) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        connection = apsw.Connection(str(self.path), flags, self._vfs or None)
        milliseconds = round(self._busy_seconds * 1_000)
        connection.set_busy_timeout(milliseconds)
        # Waits for the lock itself where it can; the busy timeout sleeps ever longer and comes too late each time: of
        # two processes that save all the time one stood still for 430 ms, with this for 7.
        connection.setlk_timeout(milliseconds, 0)
        return connection

    def _connect_reader(self) -> apsw.Connection:
        connection = self._connect()
        connection.pragma("query_only", True)
        connection.pragma("cache_size", -READER_CACHE_KIB)
        return connection

    def _connect_writer(self) -> apsw.Connection:
        connection = self._connect()
        connection.pragma("cache_size", -WRITER_CACHE_KIB)
        connection.pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        connection.pragma("journal_size_limit", LOG_BYTES_KEPT)
        connection.pragma("fullfsync", True)  # macOS: a plain fsync there stops at the disk's own cache
        connection.pragma("checkpoint_fullfsync", True)
        _flush_commits(connection, True)
        return connection

    def _borrow_reader(self) -> apsw.Connection:
        with contextlib.suppress(IndexError):
            return self._idle.pop()
        try:
            return self._connect_reader()
        except apsw.Error as error:
            raise self._failure(error) from error

    def _writer_now(self) -> apsw.Connection:
        self.check_open()
        if self._broken is not None:
            raise self._broken
        if self._writer is None:
            try:
                self._writer = self._connect_writer()
            except apsw.Error as error:
                raise self._failure(error) from error
        return self._writer

    def _close_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                _close(self._idle.pop())

    def _roll_back(self, error: apsw.Error | None) -> None:
        """Leave the transaction. After a fault of the disk also the connection: what it still knows is uncertain."""
        writer = self._writer
        try:
            if writer is not None and writer.in_transaction:
                writer.execute("ROLLBACK")
        except apsw.Error as second:
            error = second
        if error is not None and not isinstance(error, (apsw.BusyError, apsw.FullError, *ROW_FAULTS)):
            self._discard_writer()

    def _flush_again(self) -> None:
        """Let the next commit wait for the disk; a connection that does not obey must never be used again."""
        try:
            if self._writer is not None:
                _flush_commits(self._writer, True)
        except apsw.Error:
            self._discard_writer()

    def _discard_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            _close(writer)

    def _failure(self, error: apsw.Error) -> Unavailable:
        failure = unavailable(error, str(self.path))
        if isinstance(error, BROKEN):
            self._broken = failure
        return failure

    # -- opening -------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        connection = self._writer = self._connect_writer()
        if connection.readonly("main"):
            raise apsw.ReadOnlyError("attempt to write a readonly database")
        refuse_foreign(connection, str(self.path))
        self._turn_to_wal(connection)
        migrate(connection, str(self.path))
        if self.path.stat().st_size <= CHECK_AT_ONCE_BYTES:
            refuse_corrupt(connection, str(self.path))
        else:
            self._checker = threading.Thread(target=self._check_beside, name="asyncflow-quick-check", daemon=True)
            self._checker.start()

    def _turn_to_wal(self, connection: apsw.Connection) -> None:
        give_up_at = time.monotonic() + self._busy_seconds
        mode = ""
        while not mode:
            try:
                mode = connection.pragma("journal_mode", "wal")
            except apsw.BusyError:
                # SQLite does not wait by itself here: another process is turning the same new file.
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(_TRY_AGAIN_SECONDS)
        if mode != "wal":
            raise Unavailable(f"{self.path}: no write-ahead log is possible there (it stays in mode {mode}): move it")

    def _check_beside(self) -> None:
        """Check a large file while it is in use; a broken one is written no more."""
        try:
            connection = self._checked = self._connect_reader()
            try:
                if not self._closed.is_set():
                    refuse_corrupt(connection, str(self.path))
            finally:
                self._checked = None
                _close(connection)
        except Unavailable as broken:
            self._broken = broken
        except apsw.InterruptError:
            pass  # closed meanwhile
        except apsw.Error as error:
            self._failure(error)

    # -- forks ---------------------------------------------------------------------------------------------------------

    def open_anew_in_child(self) -> None:
        """Leave the parent's connections alone for ever, not even closing them, and open others when needed.

        SQLite forbids to carry a connection over a fork; closing one there could take away the parent's locks.
        """
        for connection in (self._writer, self._watcher, self._checked, *self._idle):
            if connection is not None:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        self._have_nothing_open()


_all_files: "weakref.WeakSet[SqliteFile]" = weakref.WeakSet()


def _open_anew_in_child() -> None:
    for file in list(_all_files):
        file.open_anew_in_child()


os.register_at_fork(after_in_child=_open_anew_in_child)


def _close(connection: apsw.Connection) -> None:
    """Close it, whatever the disk says to that: the log is still there, and the next one to open it finishes."""
    with contextlib.suppress(apsw.Error):
        connection.close()


def _flush_commits(connection: apsw.Connection, flush: bool) -> None:
    """Say whether a commit waits for the disk. Not from the statement cache: SQLite obeys while it compiles this."""
    connection.execute(f"PRAGMA synchronous = {'FULL' if flush else 'NORMAL'}", can_cache=False)
