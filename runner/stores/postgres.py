"""The Postgres store: any number of processes on any number of hosts, every acknowledged save on the server's disk."""

import secrets
from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import psycopg
from pydantic import JsonValue
from pydantic_core import from_json

from asyncflow import limits
from asyncflow.errors import Malformed, Unavailable
from runner.forks import renew_after_fork
from runner.stores.base import (
    ENDED,
    PAUSED,
    PRUNE_LIMIT,
    Failed,
    Flight,
    HistoryPage,
    Key,
    Outcome,
    Outcomes,
    Page,
    Revision,
    Saved,
    Store,
    Stored,
    Summary,
    Write,
)
from runner.stores.encoding import check_process, micros, moment, moment_or_none
from runner.stores.filters import parse_filter
from runner.stores.pages import NUMBER, PLACE, check_page_size, list_question, make_token, read_token
from runner.stores.postgres_errors import COLLISIONS, ROW_FAULTS
from runner.stores.postgres_exchange import begin
from runner.stores.postgres_flight import PostgresFlight
from runner.stores.postgres_listen import Listener
from runner.stores.postgres_rows import (
    DELETE,
    GET,
    GET_MANY,
    PostgresRevision,
    PreparedWrite,
    from_text,
    in_rounds,
    outcomes_of,
    prepare,
    read_labels,
    statement_for,
    stored_of,
    texts,
    to_text,
)
from runner.stores.postgres_schema import migrate
from runner.stores.postgres_search import PageQuery
from runner.stores.postgres_server import PostgresServer, Rows
from runner.stores.postgres_url import read_url

_HANDOUT: Final = limits.DUE_HANDOUT_SECONDS * 1_000_000
# Due work that comes later than this is found in time by those who look once in a sweep period.
_TOLD_AHEAD: Final = 2 * limits.SWEEP_PERIOD_SECONDS * 1_000_000
# A batch that has met another one in a deadlock is made again at most so often: rows are locked in one order, so that
# even one is rare.
_COLLISIONS_MAX: Final = 3

_WORKFLOWS: Final = """
WITH RECURSIVE names (name) AS (
    SELECT min(workflow) FROM instances
    UNION ALL SELECT (SELECT min(workflow) FROM instances WHERE workflow > name) FROM names WHERE name IS NOT NULL
) SELECT name FROM names WHERE name IS NOT NULL"""
_HISTORY: Final = """
SELECT h.entries::text FROM instances i JOIN history h ON h.seq = i.seq
WHERE i.workflow = $1::text AND i.id = $2::text AND h.last > $3::bigint ORDER BY h.last LIMIT $4::bigint"""
# The claim is not flushed: what a crash of the server takes of it is only due earlier.
_DUE: Final = """
WITH unflushed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
found AS MATERIALIZED (
    SELECT f.seq, f.wake_at FROM unnest($1::text[]) AS w (name) CROSS JOIN LATERAL (
        SELECT seq, wake_at FROM instances WHERE workflow = w.name AND wake_at <= $2::bigint
        ORDER BY wake_at LIMIT $3::bigint FOR NO KEY UPDATE SKIP LOCKED
    ) f ORDER BY f.wake_at LIMIT $3::bigint
),
claimed AS (
    UPDATE instances i SET wake_at = $4::bigint, claimed_by = $5::text FROM found, unflushed
    WHERE i.seq = found.seq RETURNING found.wake_at, i.workflow, i.id
)
SELECT workflow, id FROM claimed ORDER BY wake_at"""
_NEXT_DUE: Final = """
SELECT min(f.wake_at) FROM unnest($1::text[]) AS w (name) CROSS JOIN LATERAL (
    SELECT wake_at FROM instances WHERE workflow = w.name AND wake_at IS NOT NULL ORDER BY wake_at LIMIT 1
) f"""
_PARK: Final = """
UPDATE instances SET status = $5::text, due_at = NULL, wake_at = NULL, claimed_by = NULL, reason = $6::text, unfit = true
WHERE seq = $1::bigint AND revision = $2::bigint AND workflow = $3::text AND id = $4::text RETURNING seq"""
_DEFER: Final = """
UPDATE instances SET wake_at = $5::bigint, claimed_by = NULL, tries = tries + 1, unfit = true
WHERE seq = $1::bigint AND revision = $2::bigint AND workflow = $3::text AND id = $4::text RETURNING seq"""
_UNFIT: Final = "SELECT workflow, id FROM instances WHERE workflow = ANY ($1::text[]) AND unfit"
_PROCESSES: Final = """
SELECT DISTINCT unnest(holders) FROM instances WHERE holders <> '{}'
UNION SELECT DISTINCT claimed_by FROM instances WHERE claimed_by IS NOT NULL"""
_HELD_BY: Final = """
SELECT workflow, id FROM instances WHERE claimed_by = $1::text
UNION SELECT workflow, id FROM instances WHERE holders @> ARRAY[$1::text] AND holders <> '{}'"""
_EXPIRED: Final = """
SELECT f.workflow, f.id FROM unnest($1::text[]) AS w (name) CROSS JOIN LATERAL (
    SELECT workflow, id, expires_at FROM instances
    WHERE workflow = w.name AND expires_at <= $2::bigint AND status = ANY ($4::text[]) ORDER BY expires_at LIMIT $3::bigint
) f ORDER BY f.expires_at LIMIT $3::bigint"""
_PRUNE: Final = """
WITH old AS MATERIALIZED (
    SELECT h.ctid AS place FROM history h JOIN instances i ON i.seq = h.seq
    WHERE h.at < $1::bigint AND i.workflow = ANY ($2::text[]) AND ($3::boolean OR i.status = ANY ($4::text[]))
    ORDER BY h.at LIMIT $5::bigint
),
pruned AS (DELETE FROM history h USING old WHERE h.ctid = old.place RETURNING 1)
SELECT count(*) FROM pruned"""
_CHANGED: Final = "SELECT pg_current_snapshot()::text"
_TELL: Final = "SELECT pg_notify($1::text, $2::text)"


class PostgresStore(Store):
    """A handle on the schema at *url*, which is made if it is missing; `Unavailable` says why it cannot be used.

    Args:
        url: `postgresql://user:password@host:port/database`, with libpq's parameters and, of ours, `schema`, `pool_size`,
            `statement_timeout` (seconds) and `synchronous_commit`.
        clock: What `now` answers, for tests; None: the server's clock.
    """

    filterable = frozenset(("status", "created_at", "updated_at", "labels", "state"))
    hands_out_once = True
    knows_processes = False
    remote = True

    def __init__(self, url: str, *, clock: Callable[[], datetime] | None = None) -> None:
        self._server = PostgresServer(read_url(url))
        self._clock = self._server.clock.now if clock is None else clock
        self._origin = secrets.token_hex(8)
        self._listener: Listener | None = None
        try:
            migrate(self._server)
        except BaseException:
            self._server.close()
            raise
        renew_after_fork(self)

    def begin_anew(self) -> None:
        """Leave the listening to the parent."""
        self._origin = secrets.token_hex(8)
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.leave()

    # -- writing and reading -------------------------------------------------------------------------------------------

    def commit(self, writes: Sequence[Write]) -> Outcomes:
        """See `Store.commit`. One statement for all of *writes*, which is a transaction and a round trip."""
        prepared = [prepare(write) for write in writes]
        rows = [row for row in prepared if isinstance(row, PreparedWrite)]
        outcomes = iter(self._commit_rows(rows) if rows else ())
        return [next(outcomes) if isinstance(row, PreparedWrite) else row for row in prepared]

    def _commit_rows(self, rows: list[PreparedWrite]) -> Outcomes:
        found: dict[int, Outcome] = {}
        for places in in_rounds(rows):
            found.update(zip(places, self._commit_round([rows[place] for place in places]), strict=True))
        outcomes = [found[place] for place in range(len(rows))]
        self._tell_others(rows, outcomes)
        return outcomes

    def _commit_round(self, rows: list[PreparedWrite]) -> Outcomes:
        for tries in range(1, _COLLISIONS_MAX + 1):
            try:
                return outcomes_of(rows, self._server.exchange(*statement_for(rows)))
            except Unavailable as error:
                fault = error.__cause__
                if isinstance(fault, ROW_FAULTS):
                    return self._commit_each(rows, fault)
                if not isinstance(fault, COLLISIONS) or tries == _COLLISIONS_MAX:
                    return [Failed(error, bool(error.details))] * len(rows)
        raise AssertionError("the last try returns")

    def _commit_each(self, rows: list[PreparedWrite], fault: BaseException) -> Outcomes:
        """One of them is at fault, and nothing was stored: each by itself, so that it stops no other."""
        if len(rows) == 1:
            return [Failed(Malformed(f"the record cannot be stored: {fault}"))]
        return [self._commit_round([row])[0] for row in rows]

    def begin_commit(self, writes: Sequence[Write]) -> Flight | None:
        """See `Store.begin_commit`."""
        rows = [row for row in map(prepare, writes) if isinstance(row, PreparedWrite)]
        if len(rows) < len(writes) or len(in_rounds(rows)) != 1:
            return None
        link = self._server.borrow_now()
        if link is None:
            return None
        statement, values = statement_for(rows)
        if statement.name in link.prepared:
            with suppress(psycopg.Error):
                return PostgresFlight(self._server, begin(link, statement, values), rows, self._tell_others)
            # What could not be sent whole is no statement, so nothing was done.
            link.close()
        self._server.give_back(link)
        return None

    def _tell_others(self, rows: Sequence[PreparedWrite], outcomes: Sequence[Outcome]) -> None:
        """Tell listening handles that there is work; a statement of its own.

        Within the commit it would make all commits that tell something wait for each other's flush, in all databases of the
        server. What is not told, as this process dies just here, is found by the next sweep (rule 7).
        """
        soon = micros(self._clock()) + _TOLD_AHEAD
        for row, outcome in zip(rows, outcomes, strict=True):
            if row.due_at is not None and row.due_at <= soon and isinstance(outcome, Saved):
                self._say_something()
                return

    def _say_something(self) -> None:
        if self._listener is not None:
            self._listener.say()
        else:
            with suppress(Unavailable):  # a failed wake-up never fails a write (rule 7)
                self._server.write(_TELL, self._server.place.channel, self._origin)

    def get(self, workflow: str, id: str) -> Stored | None:
        """See `Store.get`."""
        answer = self._server.look(GET, [to_text(workflow).encode(), to_text(id).encode()])
        return stored_of(answer, 0) if answer.ntuples else None

    def get_many(self, keys: Sequence[tuple[str, str]]) -> Sequence[Stored | None]:
        """See `Store.get_many`. One round trip for all of *keys*."""
        if len(keys) <= 1:
            return [self.get(*key) for key in keys]
        answer = self._server.look(GET_MANY, [texts([workflow for workflow, _ in keys]), texts([id_ for _, id_ in keys])])
        lines = [stored_of(answer, line) for line in range(answer.ntuples)]
        found = {(stored.record.workflow, stored.record.id): stored for stored in lines}
        return [found.get((workflow, id_)) for workflow, id_ in keys]

    def delete(self, workflow: str, id: str, expected: Revision) -> bool:
        """See `Store.delete`."""
        return self._change_row(DELETE, (workflow, id), expected)

    def _change_row(self, sql: str, key: tuple[str, str], expected: Revision, *values: Any) -> bool:
        if not isinstance(expected, PostgresRevision):
            return False
        at = expected.seq, expected.number, to_text(key[0]), to_text(key[1])
        return bool(self._server.write(sql, *at, *values))

    # -- looking around ------------------------------------------------------------------------------------------------

    def list(
        self,
        workflows: Sequence[str] | None = None,
        *,
        status: str | None = None,
        filter: str = "",
        page_size: int = limits.PAGE_SIZE,
        page_token: str | None = None,
    ) -> Page:
        """See `Store.list`."""
        check_page_size(page_size)
        question = list_question(workflows, status, filter)
        after = None if page_token is None else read_token(question, page_token, PLACE)
        comparisons = parse_filter(filter, self.filterable, "Postgres")
        if workflows is None:
            workflows = [from_text(name) for (name,) in self._server.read(_WORKFLOWS)]
        self._server.check_open()
        if not workflows:
            return Page((), None)
        query = PageQuery(sorted(set(workflows)), status, comparisons, after, page_size + 1)
        rows = self._server.read(query.sql, *query.values, prepare=False)
        more = len(rows) > page_size
        items = tuple(map(_summary, rows[:page_size]))
        if not more:
            return Page(items, None)
        last = items[-1]
        return Page(items, make_token(question, [micros(last.created_at), last.id, last.workflow]))

    def history(self, workflow: str, id: str, *, page_size: int = limits.PAGE_SIZE, page_token: str | None = None) -> HistoryPage:
        """See `Store.history`."""
        check_page_size(page_size)
        question: JsonValue = [workflow, id]
        after = 0 if page_token is None else read_token(question, page_token, NUMBER)
        texts = self._server.read(_HISTORY, to_text(workflow), to_text(id), after, page_size + 1)
        entries = [entry for (text,) in texts for entry in from_json(text) if entry["n"] > after]
        more = len(entries) > page_size
        del entries[page_size:]
        return HistoryPage(tuple(entries), make_token(question, entries[-1]["n"]) if more else None)

    # -- due work ------------------------------------------------------------------------------------------------------

    def due(self, workflows: Collection[str], *, now: datetime, limit: int, process: str = "") -> Sequence[Key]:
        """See `Store.due`. What others are just claiming or saving is passed over, not waited for."""
        at, names = micros(now), _names(workflows)
        if limit <= 0 or not names:
            self._server.check_open()
            return []
        return _keys(self._server.write(_DUE, names, at, limit, at + _HANDOUT, process or None))

    def next_due(self, workflows: Collection[str]) -> datetime | None:
        """See `Store.next_due`."""
        return moment_or_none(self._server.read(_NEXT_DUE, _names(workflows))[0][0])

    def park(self, workflow: str, id: str, expected: Revision, reason: str) -> bool:
        """See `Store.park`."""
        # What an error quotes may hold halves of surrogate pairs.
        readable = reason.encode("utf-8", "replace").decode()
        return self._change_row(_PARK, (workflow, id), expected, PAUSED, to_text(readable))

    def defer(self, workflow: str, id: str, expected: Revision, *, until: datetime) -> bool:
        """See `Store.defer`."""
        at = micros(until)
        deferred = self._change_row(_DEFER, (workflow, id), expected, at)
        if deferred and at <= micros(self._clock()) + _TOLD_AHEAD:
            self._say_something()
        return deferred

    def unfit(self, workflows: Collection[str]) -> Sequence[Key]:
        """See `Store.unfit`."""
        return sorted(_keys(self._server.read(_UNFIT, _names(workflows))))

    # -- processes -----------------------------------------------------------------------------------------------------

    def enter(self, process: str) -> None:
        """See `Store.enter`: nobody here can tell whether a process on another host lives."""
        check_process(process)
        self._server.check_open()

    def dead(self, processes: Collection[str]) -> set[str]:  # noqa: ARG002 (of the contract)
        """See `Store.dead`."""
        self._server.check_open()
        return set()

    def processes(self) -> set[str]:
        """See `Store.processes`."""
        return {from_text(name) for (name,) in self._server.read(_PROCESSES)}

    def held_by(self, process: str) -> Sequence[Key]:
        """See `Store.held_by`."""
        return sorted(_keys(self._server.read(_HELD_BY, to_text(process))))

    # -- retention -----------------------------------------------------------------------------------------------------

    def expired(self, workflows: Collection[str], *, now: datetime, limit: int) -> Sequence[Key]:
        """See `Store.expired`."""
        return _keys(self._server.read(_EXPIRED, _names(workflows), micros(now), max(limit, 0), [*ENDED]))

    def prune_history(self, workflows: Collection[str], *, before: datetime, live: bool = False, limit: int = PRUNE_LIMIT) -> int:
        """See `Store.prune_history`."""
        rows = self._server.write(_PRUNE, micros(before), _names(workflows), live, [*ENDED], limit)
        return int(rows[0][0])

    # -- the handle ----------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """See `Store.now`. Never asks the server."""
        return self._clock()

    def changed(self) -> Hashable:
        """See `Store.changed`: which transactions have ended. One round trip; see `listen` for what costs none."""
        return str(self._server.read(_CHANGED)[0][0])

    def listen(self, heard: Callable[[], None]) -> bool:
        """See `Store.listen`. By LISTEN, on a connection of its own beside the pool."""
        self._server.check_open()
        if self._listener is not None:
            self._listener.close()
        self._listener = Listener(self._server, self._origin, heard)
        return True

    def close(self) -> None:
        """See `Store.close`."""
        if self._listener is not None:
            self._listener.close()
        self._server.close()


def _names(workflows: Collection[str]) -> list[str]:
    return [to_text(name) for name in set(workflows)]


def _keys(rows: Rows) -> list[Key]:
    return [Key(from_text(workflow), from_text(id_)) for workflow, id_ in rows]


def _summary(row: tuple[Any, ...]) -> Summary:
    created, id_, workflow, status, updated, reason, labels, document = row
    return Summary(
        workflow=from_text(workflow),
        id=from_text(id_),
        status=from_text(status),
        document=document,
        created_at=moment(created),
        updated_at=moment(updated),
        labels=read_labels(labels.encode()),
        reason=None if reason is None else from_text(reason),
    )
