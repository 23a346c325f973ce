"""The tables of the SQLite store, and how an older file becomes a newer one.

A file's `user_version` counts the migrations it has seen. A migration is never changed once it was released.
"""

from typing import Final, TypeAlias

import apsw

from asyncflow.errors import Unavailable

# What is bound to a statement, and comes out of a column.
ColumnValue: TypeAlias = str | int | float | bytes | None

# Says in the file's header whose it is ("asfl"), so that no other program's database is ever taken for ours.
APPLICATION_ID: Final = 0x6173_666C

# instances: `seq` is never used twice, so a revision of a deleted instance fits no later one. `wake_at` is what due
# work is found by: `due_at`, or what `due` and `defer` made of it. `unfit` says that other code may get on with it.
# Texts are blobs: they come back byte for byte, whatever is in them. They stand last, since SQLite reads a row from
# the front. Times are microseconds since 1970.
# history: one row for each write, with all its entries: a third of the inserts that one row an entry would take.
# labels: only what can be asked for by `=`; true and false as blobs, because to SQLite they are 1 and 0.
_FIRST: Final = """
CREATE TABLE instances (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    workflow TEXT NOT NULL,
    id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    status TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    due_at INTEGER,
    wake_at INTEGER,
    expires_at INTEGER,
    claimed_by TEXT,
    unplaced INTEGER NOT NULL,
    unfit INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    reason TEXT,
    uid TEXT NOT NULL,
    rev INTEGER NOT NULL,
    holders TEXT NOT NULL,
    labels BLOB NOT NULL,
    document BLOB NOT NULL,
    state BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX instances_key ON instances (workflow, id);
CREATE INDEX instances_created ON instances (workflow, created_at, id);
CREATE INDEX instances_status ON instances (workflow, status, created_at, id);
CREATE INDEX instances_wake ON instances (workflow, wake_at, id) WHERE wake_at IS NOT NULL;
CREATE INDEX instances_expiry ON instances (workflow, expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX instances_unfit ON instances (workflow, id) WHERE unfit = 1;
CREATE INDEX instances_claimed ON instances (claimed_by, workflow, id) WHERE claimed_by IS NOT NULL;

CREATE TABLE labels (
    workflow TEXT NOT NULL,
    name TEXT NOT NULL,
    value ANY NOT NULL,
    created_at INTEGER NOT NULL,
    id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (workflow, name, value, created_at, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE holders (
    process TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (process, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE history (
    seq INTEGER NOT NULL,
    last INTEGER NOT NULL,
    at INTEGER NOT NULL,
    entries BLOB NOT NULL
) STRICT;
CREATE INDEX history_entries ON history (seq, last);
CREATE INDEX history_age ON history (at);
"""

MIGRATIONS: Final = (_FIRST,)


def migrate(connection: apsw.Connection, path: str, migrations: tuple[str, ...] = MIGRATIONS) -> None:
    """Bring the file to the newest form in one transaction, or leave it as it is.

    Raises:
        Unavailable: The file was written by a newer asyncflow.
    """
    if _version(connection, path, migrations) == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Once more under the lock: another process may have done it meanwhile.
        for migration in migrations[_version(connection, path, migrations) :]:
            connection.execute(migration)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def refuse_foreign(connection: apsw.Connection, path: str) -> None:
    """Refuse the database of another program before anything in it is touched: `Unavailable`."""
    owner = connection.pragma("application_id")
    if owner != APPLICATION_ID and connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
        raise Unavailable(f"{path} is the database of another program: name a file of its own for asyncflow")


def _version(connection: apsw.Connection, path: str, migrations: tuple[str, ...]) -> int:
    """Return how many migrations the file has seen; refuse one that is ahead of us."""
    version = int(connection.pragma("user_version"))
    if version > len(migrations):
        raise Unavailable(f"{path} was written by a newer asyncflow (form {version}, this one knows {len(migrations)}): upgrade")
    return version
