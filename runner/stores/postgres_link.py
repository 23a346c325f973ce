"""One connection to a Postgres server, with what a pool has to know of it."""

import inspect
import select
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg

# After this a connection makes room for a new one: a server's process grows with what it has seen, and hosts move.
LIFE_SECONDS: Final = 3_600.0
# Newer psycopg can give up a wait; with an older one only a server that does not even acknowledge packets is noticed.
_CAN_GIVE_UP: Final = "timeout" in inspect.signature(psycopg.Connection.wait).parameters


class Link(psycopg.Connection[tuple[Any, ...]]):
    """A connection that does not wait for ever for a server that has stopped."""

    born: float = 0.0
    used: float = 0.0
    patience: float | None = None

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.warnings: list[str] = []
        """What the server has warned of since the last look."""
        self.prepared: set[bytes] = set()
        """The statements that `postgres_exchange` has told the server of, by name."""
        self.add_notice_handler(_noting(self.warnings))

    @property
    def is_old(self) -> bool:
        """Whether it has lived long enough."""
        return time.monotonic() - self.born > LIFE_SECONDS

    @property
    def has_said(self) -> bool:
        """Whether the server has sent something though it was not asked."""
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN)
        return bool(poll.poll(0))

    def wait(self, gen: Any, *args: Any, **named: Any) -> Any:
        """Wait for an answer as psycopg does, but no longer than `patience`."""
        if _CAN_GIVE_UP and self.patience is not None and named.get("timeout") is None:
            named["timeout"] = self.patience
        return super().wait(gen, *args, **named)


def _noting(warnings: list[str]) -> Callable[[psycopg.errors.Diagnostic], None]:
    def noted(diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            warnings.append(diagnostic.message_primary or "a warning")

    return noted
