"""What may lie between a Postgres store and its server: a network that loses words, settings, rights, other transactions."""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from asyncflow.errors import Malformed, Unavailable
from runner.stores import open_store, postgres_link, postgres_rows, postgres_schema, postgres_server
from runner.stores import postgres as driver
from runner.stores.base import Failed, Outcomes, Saved, Write
from runner.stores.filters import parse_filter
from runner.stores.postgres import PostgresStore
from runner.stores.postgres_schema import MIGRATIONS, migrate
from runner.stores.postgres_search import PageQuery
from runner.stores.postgres_url import read_url
from tests.conformance.far import land
from tests.conformance.records import (
    HOUR,
    NOW,
    ORDER,
    create,
    entries,
    failed,
    listed,
    numbers,
    read,
    record,
    revision,
    save,
)
from tests.conformance.suite import StoreConformance
from tests.servers.postgres import PostgresCluster, free_port, postgres, postgres_url, running_cluster
from tests.servers.proxy import Cut, Proxy

__all__ = ["postgres", "postgres_url"]

pytestmark = pytest.mark.server("postgres")
ROOT = Path(__file__).parents[2]
COMMIT = b"asyncflow_commit"
Commit = Callable[[PostgresStore, list[Write]], Outcomes]
WAYS = pytest.mark.parametrize("commit", [PostgresStore.commit, land], ids=["waiting", "flying"])


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    opened = PostgresStore(postgres_url)
    yield opened
    opened.close()


@contextmanager
def through(proxy: Proxy, url: str, more: str = "") -> Iterator[PostgresStore]:
    """A handle whose words go through *proxy*, and whose connections know their statements already."""
    port = url.partition("127.0.0.1:")[2].partition("/")[0]
    store = PostgresStore(url.replace(f":{port}/", f":{proxy.port}/") + more)
    create(store, record("first"))
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def database(postgres: PostgresCluster) -> Iterator[str]:
    """A database of the test's own, whose settings it may change."""
    name = f"d{threading.get_ident()}"
    postgres.execute(f"CREATE DATABASE {name}")
    yield name
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


# -- a network that loses words ----------------------------------------------------------------------------------------


@WAYS
def test_a_commit_whose_answer_is_lost_is_in_doubt_and_stored(postgres: PostgresCluster, postgres_url: str, commit: Commit) -> None:
    with Proxy(postgres.port) as proxy, through(proxy, postgres_url) as store:
        proxy.cut(COMMIT, "after")
        outcome = commit(store, [Write(record(rev=7), None, entries(1))])[0]
        assert isinstance(outcome, Failed)
        assert outcome.in_doubt
        assert isinstance(outcome.error, Unavailable)
        assert proxy.cuts == 1
        assert (read(store).rev, numbers(store)) == (7, [1])
        save(store, record(rev=8), revision(store))


@WAYS
def test_a_commit_that_never_arrives_is_in_doubt_and_not_stored(
    postgres: PostgresCluster, postgres_url: str, commit: Commit
) -> None:
    with Proxy(postgres.port) as proxy, through(proxy, postgres_url) as store:
        proxy.cut(COMMIT, "before")
        outcome = commit(store, [Write(record(), None, entries(1))])[0]
        assert isinstance(outcome, Failed)
        assert outcome.in_doubt, "nobody here can know that it never arrived"
        assert store.get(ORDER, "o-1") is None
        assert numbers(store) == []
        create(store, record())


def test_what_changes_columns_alone_is_in_doubt_too(postgres: PostgresCluster, postgres_url: str) -> None:
    with Proxy(postgres.port) as proxy, through(proxy, postgres_url) as store:
        at = create(store, record(due_at=NOW))
        # A value is what tells the statement from its announcement to a new connection.
        for word, call in (
            (b"because", lambda: store.park(ORDER, "o-1", at, "because")),
            (b"o-1", lambda: store.defer(ORDER, "o-1", at, until=NOW)),
            (b"host-1", lambda: store.due([ORDER], now=NOW, limit=9, process="host-1")),
            (b"o-1", lambda: store.delete(ORDER, "o-1", at)),
        ):
            proxy.cut(word, "after")
            with pytest.raises(Unavailable) as lost:
                call()
            assert lost.value.details == {"in_doubt": True}
        assert store.get(ORDER, "o-1") is None


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_question_whose_answer_is_lost_is_asked_again(postgres: PostgresCluster, postgres_url: str, when: Cut) -> None:
    with Proxy(postgres.port) as proxy, through(proxy, postgres_url) as store:
        create(store, record(due_at=NOW))
        read(store)
        proxy.cut(b"asyncflow_get", when)
        assert read(store) == record(due_at=NOW)
        for call in (lambda: listed(store), lambda: store.next_due([ORDER]), store.changed):
            # What was announced to a connection before has a number there.
            call()
            proxy.cut(b"_pg3_", when)
            call()
        assert proxy.cuts == 4


def test_connections_that_went_while_idle_are_noticed_before_they_are_used(postgres: PostgresCluster, postgres_url: str) -> None:
    with Proxy(postgres.port) as proxy, through(proxy, postgres_url) as store:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: create(store, record(f"o-{number}")), range(40)))
        proxy.cut_all()
        assert isinstance(store.commit([Write(record("new"), None)])[0], Saved)
        proxy.cut_all()
        assert isinstance(land(store, [Write(record("o-x"), None)])[0], Saved)


@WAYS
def test_a_server_that_does_not_answer_is_given_up(
    postgres: PostgresCluster, postgres_url: str, commit: Commit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_server, "ANSWER_SECONDS", -0.5)
    with Proxy(postgres.port) as proxy, through(proxy, postgres_url, "&statement_timeout=1") as store:
        proxy.fall_silent()
        if commit is land:
            flight = store.begin_commit([Write(record(), None)])
            assert flight is not None
            assert flight.advance() is None
            outcome = flight.lose()[0]
        else:
            outcome = store.commit([Write(record(), None)])[0]
        assert isinstance(outcome, Failed)
        assert outcome.in_doubt
        assert "no answer" in outcome.error.message
        proxy.speak()
        create(store, record("o-2"))


def test_a_server_that_is_not_there_is_said_at_once_and_nothing_is_in_doubt(postgres: PostgresCluster, postgres_url: str) -> None:
    with Proxy(postgres.port) as proxy, through(proxy, postgres_url) as store:
        proxy.close()
        error = failed(store.commit([Write(record(), None)])[0])
        assert "refused" in error.message
        assert store.begin_commit([Write(record(), None)]) is None
        for call in (lambda: store.get(ORDER, "o-1"), store.list, lambda: store.due([ORDER], now=NOW, limit=1), store.changed):
            with pytest.raises(Unavailable) as away:
                call()
            assert not away.value.details
        assert store.now().tzinfo is not None


def test_a_listener_whose_connection_went_listens_again_and_looks(postgres: PostgresCluster, postgres_url: str) -> None:
    heard = threading.Semaphore(0)
    with Proxy(postgres.port) as proxy, through(proxy, postgres_url) as listening:
        listening.listen(heard.release)
        assert heard.acquire(timeout=30)
        proxy.cut_all()
        assert heard.acquire(timeout=30), "what was said meanwhile is not known"
        other = PostgresStore(postgres_url)
        create(other, record(due_at=other.now()))
        assert heard.acquire(timeout=30)
        other.close()


def test_a_listener_says_what_it_is_told_before_it_is_closed(postgres_url: str) -> None:
    listening, other = PostgresStore(postgres_url), PostgresStore(postgres_url)
    heard = threading.Semaphore(0)
    other.listen(heard.release)
    assert heard.acquire(timeout=30)
    listening.listen(lambda: None)
    create(listening, record(due_at=listening.now()))
    listening.close()
    assert heard.acquire(timeout=30)
    other.close()


# -- a server that goes and comes back ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [PostgresCluster.stop, PostgresCluster.kill], ids=["stopped", "killed"])
def test_what_was_acknowledged_survives_the_server(end: Callable[[PostgresCluster], None]) -> None:
    with running_cluster(fsync="on", full_page_writes="on") as own:
        store = PostgresStore(own.url("postgres"))
        outcomes = store.commit([Write(record(f"o-{number}", labels={"n": number}), None, entries(1)) for number in range(50)])
        assert all(isinstance(outcome, Saved) for outcome in outcomes)
        end(own)
        assert isinstance(failed(store.commit([Write(record("x"), None)])[0]), Unavailable)
        own.start()
        assert len(listed(store)) == 50
        assert listed(store, filter="labels.n = 7") == ["o-7"]
        save(store, record("o-7", rev=2), revision(store, "o-7"))
        store.close()


# -- other transactions ------------------------------------------------------------------------------------------------


def test_due_work_that_somebody_holds_is_passed_over(postgres: PostgresCluster, store: PostgresStore) -> None:
    for name in ("held", "free"):
        create(store, record(name, due_at=NOW))
    with psycopg.connect(postgres.url("postgres")) as other:
        other.execute(f"SELECT 1 FROM {store._server.place.schema}.instances WHERE id = 'held' FOR UPDATE")
        assert store.due([ORDER], now=NOW, limit=9) == [(ORDER, "free")]
    assert store.due([ORDER], now=NOW, limit=9) == [(ORDER, "held")]


def test_a_row_that_stays_locked_fails_the_save_and_nothing_is_in_doubt(
    postgres: PostgresCluster, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_server, "LOCK_SECONDS", 0.1)
    store = PostgresStore(postgres_url)
    at = create(store, record())
    with psycopg.connect(postgres.url("postgres")) as other:
        other.execute(f"SELECT 1 FROM {store._server.place.schema}.instances FOR UPDATE")
        assert "somebody holds a row locked" in failed(store.commit([Write(record(rev=2), at)])[0]).message
        assert "somebody holds a row locked" in failed(land(store, [Write(record(rev=2), at)])[0]).message
    save(store, record(rev=2), at)
    store.close()


def test_batches_in_each_others_way_never_fail(store: PostgresStore, postgres_url: str) -> None:
    other = PostgresStore(postgres_url)
    names = [f"o-{number}" for number in range(20)]
    for name in names:
        create(store, record(name, rev=0))
    start = threading.Barrier(4)

    def save_all(number: int) -> list[Failed]:
        handle, order = (store, other)[number % 2], names if number < 2 else names[::-1]
        start.wait()
        bad: list[Failed] = []
        for _ in range(15):
            writes = [Write(record(name, rev=number), revision(handle, name)) for name in order]
            bad += [outcome for outcome in handle.commit(writes) if isinstance(outcome, Failed)]
        return bad

    with ThreadPoolExecutor(4) as pool:
        assert [bad for part in pool.map(save_all, range(4)) for bad in part] == []
    other.close()


def test_the_pool_is_no_larger_than_told(postgres: PostgresCluster, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_server, "PLACE_SECONDS", 0.05)
    store = PostgresStore(postgres_url + "&pool_size=2&application_name=counted")
    with store._server.borrowed(), store._server.borrowed():
        with pytest.raises(Unavailable, match="all 2 connections are in use"):
            store.get(ORDER, "o-1")
        assert store.begin_commit([Write(record(), None)]) is None
    with ThreadPoolExecutor(8) as pool:
        monkeypatch.setattr(postgres_server, "PLACE_SECONDS", 30.0)
        list(pool.map(lambda number: create(store, record(f"o-{number}")), range(50)))
    count = postgres.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'counted'")
    assert count[0][0] <= 2
    store.close()


def test_an_old_and_an_idle_connection_make_room(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with store._server.borrowed() as first, store._server.borrowed() as second:
        pass
    monkeypatch.setattr(postgres_server, "IDLE_SECONDS", -1.0)
    store.get(ORDER, "o-1")
    assert [first.closed, second.closed].count(True) == 1
    monkeypatch.setattr(postgres_link, "LIFE_SECONDS", -1.0)
    store.get(ORDER, "o-1")
    assert first.closed
    assert second.closed


# -- settings and rights -----------------------------------------------------------------------------------------------


def test_a_server_that_does_not_wait_for_the_disk_is_refused_unless_the_url_says_so(
    postgres: PostgresCluster, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    postgres.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
    with pytest.raises(Unavailable, match=r"synchronous_commit is off there.*\?synchronous_commit=on"):
        PostgresStore(postgres.url(database))
    for wanted in ("on", "off", "local", "remote_write", "remote_apply"):
        caplog.clear()
        store = PostgresStore(f"{postgres.url(database)}?synchronous_commit={wanted}")
        create(store, record(wanted))
        assert store._server.read("SHOW synchronous_commit", prepare=False) == [(wanted,)]
        assert [one.levelno for one in caplog.records] == [logging.WARNING]
        assert ("synchronous_commit is off" in caplog.text) == (wanted == "off")
        assert ("fsync is off" in caplog.text) == (wanted != "off"), "that of the tests flushes nothing"
        # Handing out is not flushed, and what comes after it is.
        store.due([ORDER], now=NOW, limit=9)
        assert store._server.read("SHOW synchronous_commit", prepare=False) == [(wanted,)]
        store.close()


def test_a_database_that_cannot_hold_all_texts_is_refused(postgres: PostgresCluster) -> None:
    postgres.execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'")
    try:
        with pytest.raises(Unavailable, match="ENCODING 'UTF8'"):
            PostgresStore(postgres.url("ascii"))
    finally:
        postgres.execute("DROP DATABASE ascii WITH (FORCE)")


def test_a_server_that_cannot_be_written_to_is_not_taken(postgres: PostgresCluster, database: str) -> None:
    store = PostgresStore(postgres.url(database))
    create(store, record())
    postgres.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    with pytest.raises(Unavailable, match="read-only"):
        PostgresStore(postgres.url(database))
    # The same of a connection that was made before: a primary has become a standby.
    with store._server.borrowed() as link:
        link.execute("SET default_transaction_read_only = on")
    for way in (PostgresStore.commit, land):
        assert "a new connection looks for the primary" in failed(way(store, [Write(record(), None)])[0]).message
        postgres.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")
        create(store, record(way.__name__))
        with store._server.borrowed() as link:
            link.execute("SET default_transaction_read_only = on")
    store.close()


def test_several_hosts_are_tried_in_turn(postgres: PostgresCluster, database: str) -> None:
    url = postgres.url(database).replace("127.0.0.1", f"127.0.0.1:{free_port()},127.0.0.1")
    store = PostgresStore(url)
    create(store, record())
    store.close()


@pytest.mark.parametrize(
    "url, says",
    [
        ("postgresql://me:se%ZZcret@host/db", "cannot be read"),
        ("postgresql://me:secret@host/db?nonsense=1", "cannot be read"),
        ("postgresql://me:secret@host/db?schema=Robert'); DROP", "schema="),
        ("postgresql://me:secret@host/db?schema=", "schema="),
        ("postgresql://me:secret@host/db?pool_size=1", "pool_size= is a whole number from 2"),
        ("postgresql://me:secret@host/db?pool_size=many", "pool_size="),
        ("postgresql://me:secret@host/db?statement_timeout=0", "statement_timeout="),
        ("postgresql://me:secret@host/db?synchronous_commit=maybe", "synchronous_commit="),
    ],
)
def test_a_url_that_cannot_be_is_refused_without_its_secrets(url: str, says: str) -> None:
    with pytest.raises(Malformed, match=says) as refused:
        open_store(url)
    assert "cret" not in refused.value.message


def test_no_message_tells_a_password(postgres: PostgresCluster, caplog: pytest.LogCaptureFixture) -> None:
    nowhere = f"postgresql://me:secret@127.0.0.1:{free_port()}/db"
    for url in (nowhere, nowhere.replace("me:secret@", "") + "?user=me&password=secret", nowhere.replace("gresql", "gres")):
        with pytest.raises(Unavailable, match=r"postgresql://me@127\.0\.0\.1:.*/db: no connection to it") as away:
            open_store(url)
        assert "secret" not in repr(away.value)
    postgres.execute("CREATE ROLE ann LOGIN PASSWORD 'secret'")
    try:
        with pytest.raises(Unavailable, match='database "nowhere" does not exist') as refused:
            open_store(postgres.url("nowhere").replace("tester@", "ann:secret@"))
        assert "secret" not in repr(refused.value)
        assert "secret" not in caplog.text
    finally:
        postgres.execute("DROP ROLE ann")


def test_the_parameters_of_libpq_are_passed_on() -> None:
    place = read_url("postgresql://me:p%40ss@a:1,b:2/db?sslmode=require&schema=flows&pool_size=3&connect_timeout=9")
    assert place.conninfo["host"] == "a,b"
    assert place.conninfo["password"] == "p@ss"
    assert (place.conninfo["sslmode"], place.conninfo["connect_timeout"]) == ("require", "9")
    assert place.conninfo["target_session_attrs"] == "read-write"
    assert (place.schema, place.pool_size, place.name) == ("flows", 3, "postgresql://me@a:1,b:2/db")


# -- the schema --------------------------------------------------------------------------------------------------------


def test_many_may_open_a_new_schema_at_once(postgres_url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(PostgresStore, [postgres_url] * 6))
    create(stores[0], record())
    assert [read(store) for store in stores] == [record()] * 6
    for store in stores:
        store.close()


def test_an_older_schema_becomes_a_newer_one_and_keeps_its_content(store: PostgresStore, postgres_url: str) -> None:
    create(store, record(labels={"a": 1}), entries(1))
    newer = (*MIGRATIONS, "ALTER TABLE instances ADD COLUMN more text")
    for _ in range(2):
        migrate(store._server, newer)
    assert store._server.read("SELECT number FROM asyncflow_migrations ORDER BY number", prepare=False) == [(1,), (2,)]
    assert store._server.read("SELECT id, more FROM instances", prepare=False) == [("o-1", None)]
    assert (read(store), numbers(store)) == (record(labels={"a": 1}), [1])
    with pytest.raises(Unavailable, match=r"written by a newer asyncflow \(form 2, this one knows 1\): upgrade"):
        PostgresStore(postgres_url)


def test_a_migration_that_fails_leaves_the_schema_as_it_was(store: PostgresStore, postgres_url: str) -> None:
    at = create(store, record())
    with pytest.raises(Unavailable):
        migrate(store._server, (*MIGRATIONS, "ALTER TABLE instances ADD COLUMN more text; SELECT 1 / 0"))
    again = PostgresStore(postgres_url)
    save(again, record(rev=2), at)
    again.close()


def test_a_schema_with_tables_of_another_program_is_left_alone(postgres: PostgresCluster, database: str) -> None:
    postgres.execute("CREATE TABLE history (letters text)", database)
    with pytest.raises(Unavailable, match="tables of another program"):
        PostgresStore(postgres.url(database) + "?schema=public")
    assert postgres.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'", database) == [
        ("history",)
    ]
    PostgresStore(postgres.url(database)).close()


def test_a_user_without_the_right_to_make_a_schema_is_told_what_to_do(postgres: PostgresCluster, database: str) -> None:
    postgres.execute("CREATE ROLE bob LOGIN")
    try:
        url = postgres.url(database).replace("tester@", "bob@")
        with pytest.raises(Unavailable, match="CREATE SCHEMA asyncflow AUTHORIZATION"):
            PostgresStore(url)
        postgres.execute("CREATE SCHEMA asyncflow AUTHORIZATION bob", database)
        store = PostgresStore(url)
        create(store, record())
        postgres.execute("DROP SCHEMA asyncflow CASCADE", database)
        with pytest.raises(Unavailable, match="its tables are gone"):
            store.get(ORDER, "o-1")
        store.close()
    finally:
        postgres.execute("DROP OWNED BY bob CASCADE", database)
        postgres.execute("DROP ROLE bob")


def test_a_schema_locked_by_another_migration_is_waited_for_and_then_given_up(
    postgres: PostgresCluster, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_schema, "_LOCK_MILLISECONDS", 50)
    schema = postgres_url.partition("schema=")[2]
    with psycopg.connect(postgres.url("postgres")) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (postgres_schema._LOCK, schema))
        with pytest.raises(Unavailable, match="somebody holds"):
            PostgresStore(postgres_url)
    PostgresStore(postgres_url).close()


# -- texts and numbers -------------------------------------------------------------------------------------------------

STATES: list[bytes] = [
    b'{"a":"\\u0000"}',
    b'{"a":1e400}',
    b'{"a":1e200000}',
    b'{"a":' + b"9" * 400 + b"}",
    b'{"a":1,"a":2}',
    b'{"a":"\\ud800"}',
    b"[" * 20_000,
    b"\xff\xfe",
    b"",
    b"null",
    b" 7 ",
]


def test_a_state_that_no_json_of_postgres_can_hold_is_kept_and_fails_no_list(store: PostgresStore) -> None:
    for number, state in enumerate(STATES):
        create(store, record(f"o-{number:02}", state=state))
    assert [read(store, f"o-{number:02}").state for number in range(len(STATES))] == STATES
    for text in (
        "state.a = 1",
        "state.a != 1",
        "state.a > 0.5",
        'state.a < "x"',
        "state.a.b = 1",
        "state.0 = 7",
        'state.a = "\x00"',
    ):
        listed(store, filter=text)
    assert listed(store, filter="state.a = 2") == ["o-04"]


def test_a_state_is_searched_in_every_corner(store: PostgresStore) -> None:
    create(store, record("o-1", state='{"a b":{"-1":[10,{"ü":"z"}]},"s":"b\\u0001","t":"a"}'.encode()))
    create(store, record("o-2", state=b'{"s":"b","t":"a\\u0001"}'))
    for text, found in (
        ('state."a b".-1.0 = 10', "o-1"),
        ('state."a b".-1.1."ü" = z', "o-1"),
        ('state."a b".-1.-1 = 10', ""),
        ('state."a b".-1."0" = 10', ""),
        ("state.s.0 = b", ""),
        ("state.t.0 != null", ""),
        ('state.s > "b\x00"', "o-1"),
        ('state.s <= "b\x00"', "o-2"),
        ('state.s >= "b\x00"', "o-1"),
        ('state.s = "b\x00"', ""),
        ('state.s != "b\x00"', "o-2 o-1"),
        ("state.t = a", "o-1"),
    ):
        assert " ".join(listed(store, filter=text)) == found, text


def test_long_labels_and_hostile_ones_are_found(store: PostgresStore) -> None:
    values = ["x" * 5_000, "x" * 5_001, "\x00", "\x01", "\x01\x01", "\x00\x02", "", "n1.0", "b1"]
    for number, value in enumerate(values):
        create(store, record(f"o-{number}", labels={"a": value, "\x00": value}))
    for number, value in enumerate(values):
        if len(value) < 1_000:
            quoted = value.replace('"', '\\"')
            assert listed(store, filter=f'labels.a = "{quoted}"') == [f"o-{number}"], repr(value)
            assert listed(store, filter=f'labels.a = "{quoted}" AND labels.a <= "{quoted}"') == [f"o-{number}"]
        assert read(store, f"o-{number}").labels == {"a": value, "\x00": value}
    assert listed(store, filter='labels.a < "\x01"') == ["o-6", "o-5", "o-2"]
    query = "SELECT count(DISTINCT term) FROM labels WHERE name = 'a'"
    assert store._server.read(query, prepare=False) == [(len(values),)]


def test_a_name_with_a_nul_is_a_name_like_any_other(store: PostgresStore) -> None:
    create(store, record("a\x00b", "W\x01\x00", status="S\x00", uid="\x00", due_at=NOW, holders=frozenset(("host-1",))))
    stored = store.get("W\x01\x00", "a\x00b")
    assert stored is not None
    assert (stored.record.id, stored.record.status, stored.record.uid) == ("a\x00b", "S\x00", "\x00")
    assert store.park("W\x01\x00", "a\x00b", stored.revision, "\x00 \ud800")
    assert store.get_many([("W\x01\x00", "a\x00b"), ("W", "a")])[0] is not None
    assert store.held_by("host-1") == [("W\x01\x00", "a\x00b")]
    assert listed(store, status="Paused") == ["a\x00b"]


def test_a_deleted_instance_leaves_no_row_anywhere(store: PostgresStore) -> None:
    at = create(store, record(labels={"a": 1, "b": "x"}), entries(1, 2))
    at = save(store, record(labels={"a": 2}), at, entries(3))
    assert store.delete(ORDER, "o-1", at)
    for table in ("instances", "labels", "history"):
        assert store._server.read(f"SELECT count(*) FROM {table}", prepare=False) == [(0,)], table


def test_a_state_that_stayed_is_not_sent_again(postgres: PostgresCluster, postgres_url: str) -> None:
    state = b'{"a":"' + b"unheard-of" * 1_000 + b'"}'
    with Proxy(postgres.port) as proxy, through(proxy, postgres_url) as store:
        at = create(store, record(state=state))
        proxy.cut(b"unheard-of", "before")
        at = save(store, record(rev=2, state=state), at)
        assert save(store, record(rev=3, state=state), at) == revision(store)
        assert read(store) == record(rev=3, state=state)
        assert listed(store, filter="state.a != null") == ["o-1"]
        outcome = store.commit([Write(record(rev=4, state=state + b" "), revision(store))])[0]
        assert isinstance(outcome, Failed), "another state is sent"


def test_texts_are_ordered_by_code_point_whatever_the_language_of_the_database(postgres: PostgresCluster) -> None:
    postgres.execute("CREATE DATABASE words ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en' LOCALE 'C' TEMPLATE template0")
    try:
        assert postgres.execute("SELECT 'a' < 'B', 'B' < 'a'", "words") == [(True, False)], "its own order is another one"
        store = PostgresStore(postgres.url("words"))
        for name in ("a", "B", "b", "A"):
            create(store, record(name, workflow=f"W{name}", labels={"l": name}, state=b'{"s":"%s"}' % name.encode()))
            create(store, record(name, labels={"l": name}, due_at=NOW))
        assert listed(store, [ORDER]) == ["b", "a", "B", "A"]
        assert listed(store, [ORDER], page_size=1) == ["b", "a", "B", "A"]
        assert sorted(listed(store)) == ["A", "A", "B", "B", "a", "a", "b", "b"]
        assert listed(store, [ORDER], filter="labels.l < a") == ["B", "A"]
        assert listed(store, ["Wa", "WB"], filter="state.s >= a") == ["a"]
        assert len(store.due([ORDER], now=NOW, limit=9)) == 4
        store.close()
    finally:
        postgres.execute("DROP DATABASE words WITH (FORCE)")


# -- plans -------------------------------------------------------------------------------------------------------------


def plan_of(store: PostgresStore, sql: str, *values: Any) -> str:
    with store._server.borrowed() as link:
        link.execute("SET enable_seqscan = off; SET enable_sort = off")
        return "\n".join(row[0] for row in link.execute(f"EXPLAIN {sql}", values).fetchall())


def test_due_work_and_lists_are_found_by_an_index(store: PostgresStore) -> None:
    assert "instances_wake" in plan_of(store, driver._DUE, [ORDER], 0, 9, 0, None)
    assert "instances_wake" in plan_of(store, driver._NEXT_DUE, [ORDER])
    assert "instances_expiry" in plan_of(store, driver._EXPIRED, [ORDER], 0, 9, ["Finished"])
    assert "instances_holders" in plan_of(store, driver._HELD_BY, "host-1")
    assert "instances_unfit" in plan_of(store, driver._UNFIT, [ORDER])
    for text, index in (("", "instances_created"), ("labels.a = 1", "labels_pkey"), ("state.a = 1", "instances_created")):
        comparisons = parse_filter(text, store.filterable, "Postgres")
        query = PageQuery([ORDER, "Trip"], None, comparisons, (0, "o-1", ORDER), 9)
        plan = plan_of(store, query.sql, *query.values)
        assert f"Index Scan Backward using {index}" in plan, plan


# -- forks -------------------------------------------------------------------------------------------------------------

FORKED = """
import os, sys
from runner.stores.filters import parse_filter
from runner.stores.postgres import PostgresStore
from tests.conformance.records import *
store = PostgresStore(sys.argv[1])
store.listen(lambda: None)
at = create(store, record(state=b"parent"))
child = os.fork()
if not child:
    try:
        at = save(store, record(state=b"child"), at)
        assert store.due([ORDER], now=NOW, limit=1) == []
        store.close()
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
assert os.waitpid(child, 0)[1] == 0
assert read(store).state == b"child"
save(store, record(state=b"parent again"), revision(store))
assert store._listener._thread.is_alive()
store.close()
"""


def test_a_handle_works_on_both_sides_of_a_fork(postgres_url: str) -> None:
    done = subprocess.run([sys.executable, "-c", FORKED, postgres_url], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr, done.stderr


def test_opening_another_store_loads_no_library_of_postgres() -> None:
    program = "import sys\nimport runner\nfrom runner.stores import open_store\nopen_store('memory://')\n"
    subprocess.run([sys.executable, "-c", program + "assert 'psycopg' not in sys.modules"], cwd=ROOT, check=True)


# -- the clock ---------------------------------------------------------------------------------------------------------


def test_a_clock_of_the_servers_is_told_without_asking(store: PostgresStore) -> None:
    found = store._server.read("SELECT clock_timestamp()", prepare=False)[0][0]
    assert abs((store.now() - found).total_seconds()) < 5.0
    assert store.due([ORDER], now=store.now() + HOUR, limit=1) == []


# -- drivers with one fault each ---------------------------------------------------------------------------------------

# The module and the name of a statement, what is wrong in it, and the test of the suite that finds out.
FAULTS = {
    "no compare-and-set": (
        (postgres_rows, "SAVES", "AND i.revision = w.expected", ""),
        "test_of_two_writes_with_one_revision_the_first_is_saved",
    ),
    "marks stay": (
        (postgres_rows, "SAVES", "reason = NULL, tries = 0", "tries = 0"),
        "test_a_save_clears_the_mark_and_the_tries",
    ),
    "hands out twice": (
        (driver, "_DUE", "SET wake_at = $4::bigint", "SET wake_at = i.wake_at + 0 * $4::bigint"),
        "test_no_two_workers_get_the_same",
    ),
    "labels of the create": (
        (postgres_rows, "COMMIT_WITH_LABELS", "AND l.term = gone.term", "AND false"),
        "test_labels_are_those_of_the_last_save",
    ),
}


@pytest.mark.xfail(strict=True, raises=(AssertionError, pytest.fail.Exception))
@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_driver_passes(fault: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (module, name, right, wrong), test = FAULTS[fault]
    sound = getattr(module, name)
    sql = sound if isinstance(sound, str) else sound.sql
    assert right in sql
    broken = sql.replace(right, wrong)
    for place in (module, driver):
        if hasattr(place, name):
            monkeypatch.setattr(place, name, broken if isinstance(sound, str) else replace(sound, sql=broken))
    opened: list[PostgresStore] = []

    def open_one() -> PostgresStore:
        opened.append(PostgresStore(postgres_url))
        return opened[-1]

    try:
        getattr(StoreConformance(), test)(open_one)
    finally:
        for store in opened:
            store.close()
