"""The tables of the Postgres store, and how an older schema becomes a newer one.

The table `asyncflow_migrations` has a row for each migration that the schema has seen. One is never changed once it was released.
"""

from typing import Final

import psycopg

from asyncflow.errors import Unavailable
from runner.stores.postgres_link import Link
from runner.stores.postgres_server import PostgresServer

# instances: `seq` is never used twice, so a revision of a deleted instance fits no later one. `wake_at` is what due work
# is found by: `due_at`, or what `due` and `defer` made of it. `unfit` says that other code may get on with it. Texts are
# bytea: they come back byte for byte, whatever is in them; `state_json` is the state once more, for searching, null where
# it is no JSON that Postgres can hold. Times are microseconds since 1970. Rows change with every step, so dead ones are
# cleared away early: due work is read from the end of an index where they gather.
# labels: only what can be asked for by `=`. history: one row for each write, with all its entries.
# searchable: a text that is no JSON must not fail the write, nor the list, that meets it.
_FIRST: Final = """
CREATE TABLE instances (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workflow text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    status text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    due_at bigint,
    wake_at bigint,
    expires_at bigint,
    claimed_by text COLLATE "C",
    unplaced boolean NOT NULL,
    unfit boolean NOT NULL,
    tries integer NOT NULL,
    reason text,
    uid text NOT NULL,
    rev bigint NOT NULL,
    holders text[] NOT NULL,
    labels json NOT NULL,
    document bytea NOT NULL,
    state bytea NOT NULL,
    state_json jsonb
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
CREATE UNIQUE INDEX instances_key ON instances (workflow, id);
CREATE INDEX instances_created ON instances (workflow, created_at, id);
CREATE INDEX instances_status ON instances (workflow, status, created_at, id);
CREATE INDEX instances_wake ON instances (workflow, wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX instances_expiry ON instances (workflow, expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX instances_unfit ON instances (workflow, id) WHERE unfit;
CREATE INDEX instances_claimed ON instances (claimed_by) WHERE claimed_by IS NOT NULL;
CREATE INDEX instances_holders ON instances USING gin (holders) WHERE holders <> '{}';

CREATE TABLE labels (
    workflow text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    term text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (workflow, name, term, created_at, id)
);
CREATE INDEX labels_seq ON labels (seq);

CREATE TABLE history (
    seq bigint NOT NULL,
    last bigint NOT NULL,
    at bigint NOT NULL,
    entries json NOT NULL
);
CREATE INDEX history_entries ON history (seq, last);
CREATE INDEX history_age ON history (at);

CREATE FUNCTION searchable(content bytea) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN convert_from(content, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN NULL;
END
$$;
"""

MIGRATIONS: Final = (_FIRST,)

# Not by `to_regclass`, which may remember from before a lock was waited for that there is no such table.
_THERE: Final = """
SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = 'asyncflow_migrations'"""
# With the hash of the schema's name the key of the lock under which tables are changed ("asfl").
_LOCK: Final = 0x6173_666C
# How long another process may take to change the tables, in milliseconds.
_LOCK_MILLISECONDS: Final = 60_000


def migrate(server: PostgresServer, migrations: tuple[str, ...] = MIGRATIONS) -> None:
    """Bring the schema to the newest form in one transaction, or leave it as it is.

    Raises:
        Unavailable: It was written by a newer asyncflow, has tables of another program, or may not be changed.
    """
    name, schema = server.place.name, server.place.schema
    try:
        with server.borrowed() as link:
            _bring_up(link, name, schema, migrations)
    except (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateFunction) as error:
        raise Unavailable(f"{name}: the schema {schema} has tables of another program: name one of its own by ?schema=") from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise Unavailable(
            f"{name}: this user may not make or change the schema {schema}: let an administrator "
            f"CREATE SCHEMA {schema} AUTHORIZATION him ({error.diag.message_primary})"
        ) from error
    except psycopg.Error as error:
        raise server.failure(error) from error


def _bring_up(link: Link, name: str, schema: str, migrations: tuple[str, ...]) -> None:
    if _version(link, name, schema, migrations) < len(migrations):
        with link.transaction():
            link.execute(f"SET LOCAL lock_timeout = {_LOCK_MILLISECONDS}; SET LOCAL statement_timeout = 0")
            link.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", (_LOCK, schema))
            # Once more under the lock: another process may have done it meanwhile.
            _apply(link, schema, _version(link, name, schema, migrations), migrations)


def _version(link: Link, name: str, schema: str, migrations: tuple[str, ...]) -> int:
    """Return how many migrations the schema has seen; refuse one that is ahead of us."""
    if not link.execute(_THERE, (schema,)).fetchone():
        return 0
    row = link.execute(f"SELECT count(*) FROM {schema}.asyncflow_migrations").fetchone()
    version = 0 if row is None else int(row[0])
    if version > len(migrations):
        raise Unavailable(
            f"{name}: the schema {schema} was written by a newer asyncflow"
            f" (form {version}, this one knows {len(migrations)}): upgrade"
        )
    return version


def _apply(link: Link, schema: str, version: int, migrations: tuple[str, ...]) -> None:
    if not link.execute("SELECT 1 FROM pg_namespace WHERE nspname = $1", (schema,)).fetchone():
        # Not "if not exists": that asks for the right to make one even where there is one.
        link.execute(f"CREATE SCHEMA {schema}")
    if version == 0:
        link.execute("CREATE TABLE asyncflow_migrations (number integer PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())")
    for number, migration in enumerate(migrations[version:], version + 1):
        link.execute(migration)
        link.execute("INSERT INTO asyncflow_migrations (number) VALUES ($1)", (number,))
