"""What the URL of a Postgres store says: what libpq is told, what is ours, and how the store is named in messages."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from asyncflow.errors import Malformed

# Where the tables are unless the URL says otherwise: beside those of other programs, never among them.
SCHEMA: Final = "asyncflow"
# More connections of one process than this are asked for by `pool_size`: eight calls at once keep a small server busy,
# and a dozen processes stay below the hundred connections that a server has unless told otherwise.
POOL_SIZE: Final = 8
# How long one statement may take: a list over every state of a large store does, nothing else comes near it.
STATEMENT_SECONDS: Final = 20
# All that Postgres knows; all but "off" wait until the commit is on the server's disk.
SYNCHRONOUS_COMMIT: Final = ("on", "remote_apply", "remote_write", "local", "off")
# The channel of notifications has it in its name, and Postgres cuts names at 63 characters.
_SCHEMA_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,49}")

# What libpq is told where the URL says nothing. A server that is gone without a word is noticed within some 20 s, a call
# on its way within 10 s; of several hosts the one that can be written to is taken, so that a failover is a new connection.
_DEFAULTS: Final[Mapping[str, str]] = {
    "application_name": "asyncflow",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "target_session_attrs": "read-write",
}
_FORM: Final = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"


@dataclass(frozen=True, slots=True)
class PostgresPlace:
    """Where a store is: `conninfo` is for libpq and holds the password, `name` is for messages and holds none."""

    conninfo: Mapping[str, str]
    name: str
    schema: str = SCHEMA
    pool_size: int = POOL_SIZE
    statement_seconds: int = STATEMENT_SECONDS
    synchronous_commit: str | None = None

    @property
    def channel(self) -> str:
        """Where handles tell each other of due work."""
        return f"asyncflow_{self.schema}"


def read_url(url: str) -> PostgresPlace:
    """Read the URL of a store; what it says beyond libpq's own parameters are `schema`, `pool_size` and the like.

    Raises:
        Malformed: It cannot be read; the message never quotes it, as it may hold a password.
    """
    parts = urlsplit(url)
    ours: dict[str, str] = {}
    theirs: list[str] = []
    for part in parts.query.split("&") if parts.query else ():
        name, _, value = part.partition("=")
        if name in ("schema", "pool_size", "statement_timeout", "synchronous_commit"):
            ours[name] = unquote(value)
        else:
            theirs.append(part)
    schema = ours.get("schema", SCHEMA)
    if not _SCHEMA_NAME.fullmatch(schema):
        raise Malformed(f"schema= is a name of a-z, 0-9 and _, at most 50 of them, not {schema!r}")
    synchronous_commit = ours.get("synchronous_commit")
    if synchronous_commit not in (None, *SYNCHRONOUS_COMMIT):
        raise Malformed(f"synchronous_commit= is one of {', '.join(SYNCHRONOUS_COMMIT)}, not {synchronous_commit!r}")
    try:
        said = conninfo_to_dict(urlunsplit(parts._replace(query="&".join(theirs))))
    except psycopg.Error:
        # Never its own words: libpq quotes what it cannot read.
        raise Malformed(f"the URL of a Postgres store is {_FORM}?schema=…, and this one cannot be read") from None
    conninfo = {**_DEFAULTS, **{name: str(value) for name, value in said.items()}, "client_encoding": "utf8"}
    return PostgresPlace(
        conninfo,
        _shown(conninfo),
        schema,
        _number(ours, "pool_size", POOL_SIZE, at_least=2),
        _number(ours, "statement_timeout", STATEMENT_SECONDS, at_least=1),
        synchronous_commit,
    )


def _number(ours: Mapping[str, str], name: str, default: int, *, at_least: int) -> int:
    text = ours.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,4}", text) or int(text) < at_least:
        raise Malformed(f"{name}= is a whole number from {at_least} to 9999, not {text!r}")
    return int(text)


def _shown(conninfo: Mapping[str, str]) -> str:
    hosts = conninfo.get("host", conninfo.get("hostaddr", "")).split(",")
    ports = conninfo.get("port", "").split(",")
    if len(ports) < len(hosts):
        ports = ports[:1] * len(hosts)
    places = ",".join(host + (f":{port}" if port else "") for host, port in zip(hosts, ports, strict=False))
    user = f"{conninfo['user']}@" if "user" in conninfo else ""
    return f"postgresql://{user}{places}/{conninfo.get('dbname', '')}"
