"""A commit that nobody waits for in a thread: an event loop takes it on when the server has answered."""

from collections.abc import Callable, Sequence

import psycopg

from asyncflow.errors import Unavailable
from runner.stores.base import CommitAgain, Failed, Flight, Outcome, Outcomes
from runner.stores.postgres_errors import COLLISIONS, ROW_FAULTS
from runner.stores.postgres_exchange import Exchange
from runner.stores.postgres_rows import PreparedWrite, outcomes_of
from runner.stores.postgres_server import PostgresServer


class PostgresFlight(Flight):
    """The commit of *rows* by *exchange*; *tell* is told of its outcomes."""

    def __init__(
        self,
        server: PostgresServer,
        exchange: Exchange,
        rows: Sequence[PreparedWrite],
        tell: Callable[[Sequence[PreparedWrite], Sequence[Outcome]], None],
    ) -> None:
        self._server = server
        self._exchange = exchange
        self._rows = rows
        self._tell = tell
        self.descriptor = exchange.link.pgconn.socket
        self.patience = exchange.link.patience or 0.0

    @property
    def wants_write(self) -> bool:
        """See `Flight`."""
        return self._exchange.wants_write

    def advance(self) -> Outcomes | None:
        """See `Flight`."""
        link = self._exchange.link
        try:
            if not self._exchange.advance():
                return None
            self._server.refuse_warned(link)
        except psycopg.Error as error:
            failure = self._server.failed(error, link)
            self._server.give_back(link)
            if isinstance(error, (*ROW_FAULTS, *COLLISIONS)):
                raise CommitAgain from error
            return self._all_failed(failure)
        except Unavailable as failure:
            self._server.give_back(link)
            return self._all_failed(failure)
        answer = self._exchange.result
        assert answer is not None
        self._server.give_back(link)
        outcomes = outcomes_of(self._rows, answer)
        self._tell(self._rows, outcomes)
        return outcomes

    def lose(self) -> Outcomes:
        """See `Flight`."""
        link = self._exchange.link
        link.close()
        self._server.give_back(link)
        text = f"{self._server.place.name}: no answer within {self.patience:g} s"
        return self._all_failed(Unavailable(text, details={"in_doubt": True}))

    def _all_failed(self, failure: Unavailable) -> Outcomes:
        return [Failed(failure, bool(failure.details))] * len(self._rows)
