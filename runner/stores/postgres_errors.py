"""What Postgres says, in words that help: every error of the driver becomes one of ours at its edge."""

from typing import Final

import psycopg

from asyncflow.errors import Unavailable

# Faults of one row, not of the server: the other writes of the same statement are tried again without it.
ROW_FAULTS: Final = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)
# Two transactions in each other's way, of which the server has undone this one: it may be made again at once.
COLLISIONS: Final = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
# The server will not be written to any more: the next connection finds the one that will.
_NO_PRIMARY: Final = (psycopg.errors.ReadOnlySqlTransaction,)

# By the beginning of the SQLSTATE, the longest first.
_ADVICE: Final = (
    ("42501", "this user may not do that there: let him own the schema"),
    ("42P01", "its tables are gone: was the schema dropped, or a backup restored?"),
    ("3F000", "its schema is gone: was it dropped, or a backup restored?"),
    ("25006", "it is read-only, a standby or a primary that was: a new connection looks for the primary"),
    ("53100", "its disk is full: nothing is lost, make room and it goes on"),
    ("53", "it is short of something"),
    ("55P03", "somebody holds a row locked: end whatever keeps a transaction open"),
    ("57014", "the statement took too long and was given up: see statement_timeout="),
    ("57P", "it is shutting down or starting"),
)


def unavailable(error: psycopg.Error, name: str, *, in_doubt: bool = False) -> Unavailable:
    """Say what *error* means for the user of the store *name*; the server's own words stand at the end.

    Args:
        error: What the driver has raised.
        name: The store, as messages name it.
        in_doubt: Whether what was asked for may have been done all the same.
    """
    code = error.sqlstate or ""
    advice = next((said for prefix, said in _ADVICE if code.startswith(prefix)), None)
    if advice is None:
        advice = "no connection to it" if not code else f"{type(error).__name__}"
    said = (error.diag.message_primary or str(error)).strip().splitlines()
    text = f"{name}: {advice} ({said[0] if said else type(error).__name__})"
    return Unavailable(text, details={"in_doubt": True}) if in_doubt else Unavailable(text)


def is_lost(error: psycopg.Error, connection: "psycopg.Connection[tuple[object, ...]]") -> bool:
    """Tell whether the statement's end is unknown: the connection went, or the server took its last word back.

    An ERROR is the server's word that it has undone everything. A FATAL one can come behind a commit that was made
    and not yet answered.
    """
    if connection.closed or connection.pgconn.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        return True
    return error.diag.severity_nonlocalized in ("FATAL", "PANIC")


def is_no_primary(error: psycopg.Error) -> bool:
    """Tell whether another server must be looked for."""
    return isinstance(error, _NO_PRIMARY)
