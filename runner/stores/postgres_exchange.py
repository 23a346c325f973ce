"""A statement on its way to the server and back, on libpq's own terms: an event loop can wait for it without a thread.

psycopg's cursors cost more than a whole save, and its connections wait in the thread that asks. A busy event loop gives up the
interpreter only when it must, so a thread that has waited for the server waits once more for the loop.
"""

import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGresult

from runner.stores.postgres_link import Link

# What is sent for one parameter.
Sent: TypeAlias = bytes

_BINARY: Final = Format.BINARY


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that each connection is told of once; `types` are those of its parameters, as Postgres numbers them."""

    name: bytes
    sql: str
    types: tuple[int, ...]
    formats: tuple[Format, ...]


class Exchange:
    """One message to the server and its answer. Wait until `link` can be read, or written, then `advance`."""

    def __init__(self, link: Link, send: Callable[[], object]) -> None:
        self.link = link
        self.result: PGresult | None = None
        link.warnings.clear()
        send()
        self.wants_write = link.pgconn.flush() == 1

    def advance(self) -> bool:
        """Take in what has come; True once the answer is there whole, in `result`.

        Raises:
            psycopg.Error: The connection is gone, or the answer is an error.
        """
        connection = self.link.pgconn
        connection.consume_input()
        if self.wants_write:
            self.wants_write = connection.flush() == 1
        while not connection.is_busy():
            result = connection.get_result()
            if result is None:
                self._refuse_error()
                return True
            self.result = result
        return False

    def _refuse_error(self) -> None:
        if self.result is None or self.result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise psycopg.OperationalError("no answer") if self.result is None else error_from_result(self.result)

    def wait(self) -> PGresult:
        """Wait for the answer in this thread, no longer than the connection's patience."""
        until = time.monotonic() + (self.link.patience or 0.0)
        poll = select.poll()
        while not self.advance():
            poll.register(self.link.pgconn.socket, select.POLLIN | (select.POLLOUT if self.wants_write else 0))
            if not poll.poll(max(until - time.monotonic(), 0.0) * 1_000):
                raise psycopg.OperationalError(f"no answer within {self.link.patience:g} s")
        assert self.result is not None
        return self.result


def integer(field: bytes | None) -> int:
    """Read a whole number of any size as it is sent; it must be there."""
    assert field is not None
    return int.from_bytes(field, signed=True)


def integer_or_none(field: bytes | None) -> int | None:
    """Read a whole number, or null."""
    return None if field is None else int.from_bytes(field, signed=True)


def begin(link: Link, statement: Statement, values: Sequence[Sent]) -> Exchange:
    """Send a statement that the connection knows."""
    connection = link.pgconn
    return Exchange(link, lambda: connection.send_query_prepared(statement.name, values, statement.formats, _BINARY))


def make_known(link: Link, statement: Statement) -> None:
    """Tell the connection of a statement, and wait for it."""
    if statement.name not in link.prepared:
        connection = link.pgconn
        Exchange(link, lambda: connection.send_prepare(statement.name, statement.sql.encode(), statement.types)).wait()
        link.prepared.add(statement.name)
