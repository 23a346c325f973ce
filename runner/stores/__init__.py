"""Where instances lie. `open_store` opens a store by its URL; `runner.stores.base` is the contract of all."""

from collections.abc import Callable
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from asyncflow.errors import Malformed
from runner.stores.base import Store
from runner.stores.encoding import utc_now

__all__ = ["KNOWN_SCHEMES", "open_store"]

KNOWN_SCHEMES: Final = ("firestore", "memory", "postgres", "postgresql", "sqlite")
_FORMS: Final = (
    "firestore://PROJECT/COLLECTION or memory:// or postgresql://USER@HOST/DATABASE"
    " or sqlite:///relative.db or sqlite:////absolute.db"
)


def open_store(url: str, *, clock: Callable[[], datetime] = utc_now) -> Store:
    """Open a handle on the store at *url*; only its own driver is imported.

    Args:
        url: `memory://` (this handle's own), `sqlite:///relative.db`, `sqlite:////absolute.db`,
            `firestore://PROJECT/COLLECTION?database=NAME`, `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`.
        clock: What the store's `now` answers; a store with a server goes by that server's clock unless it is given another.

    Raises:
        Malformed: No such kind of store, or no place in the URL.
        Unavailable: The store cannot be used; the message says why.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "memory" and not rest:
        from runner.stores.memory import MemoryStore  # noqa: PLC0415 (only what is asked for)

        return MemoryStore(clock=clock)
    if separator and scheme == "sqlite" and rest.startswith("/") and rest[1:] and not set(rest) & set("?#"):
        if rest[1:] == ":memory:":
            raise Malformed("a SQLite store is a file: for one in memory say memory://")
        from runner.stores.sqlite import SqliteStore  # noqa: PLC0415 (only what is asked for)

        return SqliteStore(rest[1:], clock=clock)
    if separator and scheme == "firestore":
        from runner.stores.firestore import FirestoreStore  # noqa: PLC0415 (only what is asked for)

        return FirestoreStore(rest, clock=None if clock is utc_now else clock)
    if separator and scheme in ("postgresql", "postgres"):
        try:
            from runner.stores.postgres import PostgresStore  # noqa: PLC0415 (only what is asked for)
        except ModuleNotFoundError as error:
            raise Malformed(f"{error}: a Postgres store needs asyncflow-engine[postgres]") from error
        # A clock that is not that of this host is under test; else the server's counts.
        return PostgresStore(url, clock=None if clock is utc_now else clock)
    # Never the rest of it: a URL may hold a password.
    raise Malformed(f"a store is {_FORMS}, not {urlsplit(url).scheme or 'something without a scheme'}:…")
