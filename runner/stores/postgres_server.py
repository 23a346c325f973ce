"""One Postgres server as a store uses it: its connections, one statement at a time, and what becomes of them when it goes.

Every statement is a transaction of its own, made in one round trip. Connections are made by whoever needs one, so that he
hears why there is none; psycopg's own pool makes them in threads of its own, which a fork loses, tells only that none came
within a time-out, and looks less and less often for a server that is away.
"""

import ctypes
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGresult

from asyncflow.errors import Unavailable
from runner.forks import renew_after_fork
from runner.stores.postgres_clock import ServerClock
from runner.stores.postgres_errors import is_lost, is_no_primary, unavailable
from runner.stores.postgres_exchange import Statement, begin, make_known
from runner.stores.postgres_link import Link
from runner.stores.postgres_url import PostgresPlace

LOG = logging.getLogger(__name__)

T = TypeVar("T")
Rows: TypeAlias = list[tuple[Any, ...]]

# How long a lock of another transaction is waited for: far longer than any commit, far shorter than a lease.
LOCK_SECONDS: Final = 5
# How long a call waits for one of the pool's connections to be given back.
PLACE_SECONDS: Final = 5.0
# How much longer than its own time-out a statement may take until the server is taken for dead.
ANSWER_SECONDS: Final = 5.0
# After this a connection that nobody needed is closed.
IDLE_SECONDS: Final = 300.0
# The oldest version that still gets corrections, and the first with `pg_current_snapshot`.
OLDEST_VERSION: Final = 130_000

# The rows of a batch are found by a loop in the order given, so that two batches lock in one order and never wait for
# each other in a ring. No statement here gains from a plan made anew for its values, or from being compiled.
_SET_UP: Final = """
SELECT set_config(name, value, false) FROM (VALUES
    ('search_path', $1::text), ('statement_timeout', $2), ('lock_timeout', $3), ('timezone', 'UTC'),
    ('default_transaction_isolation', 'read committed'), ('plan_cache_mode', 'force_generic_plan'), ('jit', 'off'),
    ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'),
    ('synchronous_commit', coalesce($4, current_setting('synchronous_commit')))
) AS wanted (name, value)"""
_LOOK: Final = """
SELECT current_setting('synchronous_commit'), current_setting('fsync'), current_setting('server_encoding'),
    extract(epoch FROM clock_timestamp())::float8"""
_TIME: Final = "SELECT extract(epoch FROM clock_timestamp())::float8"


class PostgresServer:
    """The server at *place*, reached through at most `pool_size` connections at once."""

    def __init__(self, place: PostgresPlace) -> None:
        self.place = place
        self.clock = ServerClock(place.name)
        self._warned = False
        self._closed = False
        self._idle: deque[Link] = deque()
        self.begin_anew()
        renew_after_fork(self)

    def begin_anew(self) -> None:
        """Leave the parent's connections alone for ever, not even closing them, and make others when needed."""
        for link in self._idle:
            # To close one here would say goodbye to the parent's server process.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(link))
        self._idle = deque()  # the last one used is used first, so the rest can be given up
        self._places = threading.BoundedSemaphore(self.place.pool_size)

    # -- statements ----------------------------------------------------------------------------------------------------

    def read(self, sql: str, *values: Any, prepare: bool = True) -> Rows:
        """Return the rows of a query, which may be asked twice; `Unavailable` if it fails."""
        return _asked_twice(lambda: self._run(sql, values, prepare=prepare))

    def look(self, statement: Statement, values: Sequence[bytes]) -> PGresult:
        """Return the answer to a query, which may be asked twice; otherwise as `exchange`."""
        return _asked_twice(lambda: self.exchange(statement, values))

    def write(self, sql: str, *values: Any, prepare: bool = True) -> Rows:
        """Do one statement in a transaction of its own, and return its rows when that is durable.

        Raises:
            Unavailable: Nothing was changed; where `details` are `{"in_doubt": true}`, perhaps it was. The driver's
                error is its cause.
        """
        return self._run(sql, values, prepare=prepare)

    def _run(self, sql: str, values: Sequence[Any], *, prepare: bool) -> Rows:
        with self.borrowed() as link:
            try:
                rows = link.execute(sql, values, prepare=prepare, binary=True).fetchall()
            except psycopg.Error as error:
                raise self.failed(error, link) from error
            self.refuse_warned(link)
            return rows

    def exchange(self, statement: Statement, values: Sequence[bytes]) -> PGresult:
        """Do as `write` does, with a statement that connections know by its name, and values as they are sent."""
        for last in (False, True):
            with self.borrowed() as link:
                try:
                    make_known(link, statement)
                except psycopg.Error as error:
                    failure = self.failed(error, link)
                    if last or not failure.details:
                        raise Unavailable(failure.message) from error
                    continue  # the connection went, and nothing that counts was sent
                try:
                    answer = begin(link, statement, values).wait()
                except psycopg.Error as error:
                    raise self.failed(error, link) from error
                self.refuse_warned(link)
                return answer
        raise AssertionError("the last try returns or raises")

    def failed(self, error: psycopg.Error, link: Link) -> Unavailable:
        """Say what became of a statement on *link*, which is closed if it is of no more use."""
        lost = is_lost(error, link)
        if lost or is_no_primary(error):
            link.close()
            self._forget_idle()
        return unavailable(error, self.place.name, in_doubt=lost)

    def refuse_warned(self, link: Link) -> None:
        """Raise what the server has warned of: a commit whose wait for a standby was cut short is there, but may not survive."""
        if link.warnings:
            text = f"{self.place.name}: {link.warnings[0]}"
            link.warnings.clear()
            raise Unavailable(text, details={"in_doubt": True})

    def failure(self, error: psycopg.Error) -> Unavailable:
        """Say what an error of a connection of its own means, which has changed nothing."""
        return unavailable(error, self.place.name)

    def check_open(self) -> None:
        """Raise `Unavailable` once `close` was called."""
        if self._closed:
            raise Unavailable(f"{self.place.name}: the store is closed")

    def close(self) -> None:
        """Close all connections; a statement under way ends first, and its connection with it."""
        self._closed = True
        self._forget_idle()

    # -- connections ---------------------------------------------------------------------------------------------------

    @contextmanager
    def borrowed(self) -> Iterator[Link]:
        """Lend a connection, made if need be, as soon as there is one."""
        self.check_open()
        places = self._places
        if not places.acquire(timeout=PLACE_SECONDS):
            raise Unavailable(f"{self.place.name}: all {self.place.pool_size} connections are in use: see pool_size=")
        try:
            link = self._idle_link() or self.connect()
            try:
                yield link
            finally:
                self._put_back(link)
        finally:
            places.release()

    def borrow_now(self) -> Link | None:
        """Lend a connection until `give_back` if there is a sound one without asking anybody; else None."""
        if self._closed or self.clock.stale or not self._places.acquire(blocking=False):
            return None
        with suppress(IndexError):
            link = self._idle.pop()
            if not link.closed and not link.is_old and not link.has_said:
                return link
            self._idle.append(link)  # whoever may wait finds out
        self._places.release()
        return None

    def give_back(self, link: Link) -> None:
        """Take back what `borrow_now` has lent."""
        self._put_back(link)
        self._places.release()

    def _idle_link(self) -> Link | None:
        while True:
            try:
                link = self._idle.pop()
            except IndexError:
                return None
            if self._is_alive(link):
                return link
            link.close()

    def _is_alive(self, link: Link) -> bool:
        """Whether the server is still there, as far as can be told without asking: it has not said anything."""
        if link.closed or link.is_old:
            return False
        try:
            if link.has_said:
                link.execute("")  # goodbye, or that a setting was changed
            if self.clock.stale:
                self._set_clock(link)
        except psycopg.Error:
            return False
        return True

    def _put_back(self, link: Link) -> None:
        if link.closed or link.pgconn.transaction_status != TransactionStatus.IDLE:
            link.close()
            return
        link.used = time.monotonic()
        self._idle.append(link)
        if self._closed:
            self._forget_idle()
            return
        # One that was left over for long is the leftmost: others are used before it.
        with suppress(IndexError):
            if link.used - self._idle[0].used > IDLE_SECONDS:
                self._idle.popleft().close()

    def _forget_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def connect(self) -> Link:
        """Make a connection, which is the caller's own; `Unavailable` says why there is none."""
        try:
            conninfo = make_conninfo("", **self.place.conninfo)
            link = Link.connect(conninfo, autocommit=True, cursor_factory=psycopg.RawCursor)
        except psycopg.Error as error:
            raise unavailable(error, self.place.name) from error
        try:
            link.born = link.used = time.monotonic()
            link.patience = self.place.statement_seconds + ANSWER_SECONDS
            self._set_up(link)
        except psycopg.Error as error:
            link.close()
            raise unavailable(error, self.place.name) from error
        except BaseException:
            link.close()
            raise
        return link

    def _set_up(self, link: Link) -> None:
        place = self.place
        if link.info.server_version < OLDEST_VERSION:
            raise Unavailable(f"{place.name} is Postgres {link.info.server_version // 10_000}: 13 is the oldest that will do")
        milliseconds = (f"{place.statement_seconds * 1_000}", f"{LOCK_SECONDS * 1_000}")
        link.execute(_SET_UP, (place.schema, *milliseconds, place.synchronous_commit))
        asked = time.monotonic()
        found = link.execute(_LOOK, binary=True).fetchone()
        assert found is not None
        synchronous_commit, fsync, encoding, server = found
        self.clock.note(asked, time.monotonic(), server)
        if encoding != "UTF8":
            raise Unavailable(f"{place.name} has the encoding {encoding}: make a database with ENCODING 'UTF8'")
        if synchronous_commit == "off" and place.synchronous_commit != "off":
            raise Unavailable(
                f"{place.name}: synchronous_commit is off there, so a crash of the server loses what was acknowledged: say "
                "?synchronous_commit=on in the URL, or =off if that is what you want"
            )
        if not self._warned and (synchronous_commit == "off" or fsync == "off"):
            self._warned = True
            setting = "synchronous_commit" if synchronous_commit == "off" else "fsync"
            LOG.warning("%s: %s is off: a crash of the server loses what was acknowledged", place.name, setting)

    def _set_clock(self, link: Link) -> None:
        asked = time.monotonic()
        found = link.execute(_TIME, binary=True).fetchone()
        assert found is not None
        self.clock.note(asked, time.monotonic(), found[0])


def _asked_twice(ask: Callable[[], T]) -> T:
    """Ask, and once more if the connection went; a question is never in doubt."""
    try:
        return ask()
    except Unavailable as error:
        if not error.details:
            raise
    try:
        return ask()
    except Unavailable as error:
        raise Unavailable(error.message) from error.__cause__
