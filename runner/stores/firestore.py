"""The Firestore store: one document for each instance, one write for each save, no transaction ever."""

import itertools
from collections.abc import Callable, Collection, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Final

from pydantic import JsonValue

from asyncflow import limits
from asyncflow.errors import AsyncflowError, Unavailable
from runner.forks import renew_after_fork
from runner.stores.base import (
    PRUNE_LIMIT,
    Conflict,
    Exists,
    Failed,
    HistoryPage,
    Key,
    Outcome,
    Outcomes,
    Page,
    Revision,
    Saved,
    Store,
    Stored,
    Write,
)
from runner.stores.encoding import check_process, micros, moment
from runner.stores.filters import parse_filter
from runner.stores.firestore_calls import FirestoreCalls
from runner.stores.firestore_errors import IN_DOUBT, Refused
from runner.stores.firestore_history import FirestoreHistory
from runner.stores.firestore_layout import MARKED, document_id
from runner.stores.firestore_queries import UNSERVED, question_of
from runner.stores.firestore_rows import (
    FirestoreRevision,
    PreparedWrite,
    deferred,
    masked,
    parked,
    prepare,
    stored_of,
    summary_of,
    unchanged,
)
from runner.stores.firestore_search import FirestoreSearch
from runner.stores.firestore_url import parse_url
from runner.stores.firestore_values import DocumentWrite, Fields
from runner.stores.pages import NUMBER, PLACE, check_page_size, list_question, make_token, read_token

COMMITS_AT_ONCE: Final = 16
"""How many saves of one batch are on their way at once: a call takes some ten milliseconds of waiting, and little work."""


class FirestoreStore(Store):
    """A handle on the store at *url*, what stands behind `firestore://`; nothing is asked of the server before it is used.

    `now` is the server's clock, carried on from its last answers; a handle that has had none makes one read for it. History
    is off unless it is asked for, since each write of it is another write.

    Args:
        url: `PROJECT/COLLECTION?database=NAME`.
        clock: For tests: what `now` answers instead.

    Raises:
        Malformed: *url* is none.
        Unavailable: There are no credentials for it.
    """

    filterable = frozenset(("status", "created_at", "labels"))
    unserved = UNSERVED
    hands_out_once = False
    knows_processes = False
    remote = True
    commits_apart = True
    finds_holders = False
    history_by_default = False

    def __init__(self, url: str, *, clock: Callable[[], datetime] | None = None) -> None:
        self._url = parse_url(url)
        self._calls = FirestoreCalls(self._url)
        self._search = FirestoreSearch(self._calls)
        self._history = FirestoreHistory(self._calls)
        self._clock = clock
        self._looks = itertools.count()
        self.begin_anew()
        renew_after_fork(self)

    def begin_anew(self) -> None:
        """Leave the threads to the parent."""
        self._pool = ThreadPoolExecutor(COMMITS_AT_ONCE, thread_name_prefix="asyncflow-firestore")

    # -- writing and reading -------------------------------------------------------------------------------------------

    def commit(self, writes: Sequence[Write]) -> Outcomes:
        """See `Store.commit`. Each write is a commit of its own; those of different instances are made at once."""
        turns: dict[str, list[tuple[int, PreparedWrite]]] = {}
        outcomes: list[Outcome | None] = []
        for place, write in enumerate(writes):
            prepared = prepare(self._url, write)
            outcomes.append(None if isinstance(prepared, PreparedWrite) else prepared)
            if isinstance(prepared, PreparedWrite):
                turns.setdefault(prepared.document, []).append((place, prepared))

        def commit_in_turn(turn: Sequence[tuple[int, PreparedWrite]]) -> None:
            for place, prepared in turn:
                outcomes[place] = self._commit_one(prepared)

        if len(turns) < 2:
            for turn in turns.values():
                commit_in_turn(turn)
        else:
            begun = []
            with suppress(RuntimeError):  # closed meanwhile: what was not begun is not stored
                for turn in turns.values():
                    begun.append(self._pool.submit(commit_in_turn, turn))  # noqa: PERF401 (what was begun is waited for)
            for future in begun:
                future.result()
        return [Failed(Unavailable("the store is closed")) if outcome is None else outcome for outcome in outcomes]

    def _commit_one(self, prepared: PreparedWrite) -> Outcome:
        if prepared.revision is None:
            return Conflict()
        try:
            self._calls.check_open()
            updated, *_ = self._calls.commit(prepared.writes)
        except Refused:
            return Exists() if prepared.creates else Conflict()
        except AsyncflowError as error:
            return Failed(error, in_doubt=error.details == IN_DOUBT)
        return Saved(prepared.revision._replace(updated=updated))

    def get(self, workflow: str, id: str) -> Stored | None:
        """See `Store.get`. One read."""
        self._calls.check_open()
        document = self._calls.fetch(self._name(workflow, id))
        return None if document is None else stored_of(document)

    def get_many(self, keys: Sequence[tuple[str, str]]) -> Sequence[Stored | None]:
        """See `Store.get_many`. One call, one read for each."""
        self._calls.check_open()
        names = [self._name(*key) for key in keys]
        found = {one.name: stored_of(one) for one in self._calls.fetch_all([*dict.fromkeys(names)])} if names else {}
        return [found.get(name) for name in names]

    def delete(self, workflow: str, id: str, expected: Revision) -> bool:
        """See `Store.delete`. Of history over 400 documents the rest is deleted afterwards, unseen."""
        self._calls.check_open()
        if not isinstance(expected, FirestoreRevision) or expected.document != document_id(workflow, id):
            return False
        name = self._name(workflow, id)
        deletion = DocumentWrite(delete=name, current_document=unchanged(expected))
        try:
            if expected.history_since is None:
                self._calls.commit([deletion])
            else:
                self._history.delete_with(name, deletion)
        except Refused:
            return False
        return True

    def _name(self, workflow: str, id: str) -> str:
        return f"{self._url.root}/{self._url.collection}/{document_id(workflow, id)}"

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
        """See `Store.list`. One read for each line, and one; more where several workflows are asked for more than one field."""
        self._calls.check_open()
        check_page_size(page_size)
        question = list_question(workflows, status, filter)
        after = None if page_token is None else read_token(question, page_token, PLACE)
        asked = question_of(status, parse_filter(filter, self.filterable, "Firestore"))
        found = () if asked.empty else self._search.page(workflows, asked, after, page_size + 1)
        items = sorted(map(summary_of, found), key=lambda item: (item.created_at, item.id, item.workflow), reverse=True)
        more = len(items) > page_size
        del items[page_size:]
        token = make_token(question, [micros(items[-1].created_at), items[-1].id, items[-1].workflow]) if more else None
        return Page(tuple(items), token)

    def history(self, workflow: str, id: str, *, page_size: int = limits.PAGE_SIZE, page_token: str | None = None) -> HistoryPage:
        """See `Store.history`. One read for each write, and two."""
        self._calls.check_open()
        check_page_size(page_size)
        question: JsonValue = [workflow, id]
        after = 0 if page_token is None else read_token(question, page_token, NUMBER)
        entries = self._history.entries(workflow, id, after, page_size + 1)
        more = len(entries) > page_size
        del entries[page_size:]
        return HistoryPage(tuple(entries), make_token(question, entries[-1]["n"]) if more else None)

    # -- due work ------------------------------------------------------------------------------------------------------

    def due(self, workflows: Collection[str], *, now: datetime, limit: int, process: str = "") -> Sequence[Key]:  # noqa: ARG002 (nothing is handed out for good)
        """See `Store.due`. One read for each instance, at least one for every three workflows."""
        self._calls.check_open()
        return [key for _, key in self._search.due(workflows, micros(now), limit)] if limit > 0 else []

    def next_due(self, workflows: Collection[str]) -> datetime | None:
        """See `Store.next_due`. One read for every three workflows."""
        self._calls.check_open()
        found = self._search.due(workflows, None, 1)
        return moment(found[0][0]) if found else None

    def park(self, workflow: str, id: str, expected: Revision, reason: str) -> bool:
        """See `Store.park`. One read, one write."""
        return self._mark(workflow, id, expected, lambda stored, at: parked(stored, at, reason))

    def defer(self, workflow: str, id: str, expected: Revision, *, until: datetime) -> bool:
        """See `Store.defer`. One read, one write."""
        due_at = micros(until)
        return self._mark(workflow, id, expected, lambda stored, at: deferred(stored, at, due_at))

    def _mark(self, workflow: str, id: str, expected: Revision, fields: Callable[[Stored, FirestoreRevision], Fields]) -> bool:
        stored = self.get(workflow, id)
        if stored is None or not isinstance(expected, FirestoreRevision) or stored.revision != expected:
            return False
        try:
            self._calls.commit([masked(self._name(workflow, id), fields(stored, expected), MARKED, expected)])
        except Refused:
            return False
        return True

    def unfit(self, workflows: Collection[str]) -> Sequence[Key]:
        """See `Store.unfit`. One read for each instance, at least one."""
        self._calls.check_open()
        return self._search.unfit(workflows)

    # -- processes -----------------------------------------------------------------------------------------------------

    def enter(self, process: str) -> None:
        """See `Store.enter`: a store of many machines knows no processes."""
        self._calls.check_open()
        check_process(process)

    def dead(self, processes: Collection[str]) -> set[str]:  # noqa: ARG002 (it knows none)
        """See `Store.dead`."""
        self._calls.check_open()
        return set()

    def processes(self) -> set[str]:
        """See `Store.processes`."""
        self._calls.check_open()
        return set()

    def held_by(self, process: str) -> Sequence[Key]:  # noqa: ARG002 (it has no index of leases)
        """See `Store.held_by`."""
        self._calls.check_open()
        return []

    # -- retention -----------------------------------------------------------------------------------------------------

    def expired(self, workflows: Collection[str], *, now: datetime, limit: int) -> Sequence[Key]:
        """See `Store.expired`. One read for each instance, at least one for each workflow."""
        self._calls.check_open()
        return [key for _, key in self._search.expired(workflows, micros(now), limit)] if limit > 0 else []

    def prune_history(self, workflows: Collection[str], *, before: datetime, live: bool = False, limit: int = PRUNE_LIMIT) -> int:
        """See `Store.prune_history`. A write with very many entries counts as several."""
        self._calls.check_open()
        return self._history.prune(workflows, micros(before), limit, live=live)

    # -- the handle ----------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """See `Store.now`."""
        if self._clock is not None:
            return self._clock()
        now = self._calls.clock.now()
        if now is None:
            self._calls.check_open()
            self._calls.fetch(self._name("", "clock"), ("rev",))
            now = self._calls.clock.now()
        if now is None:
            raise Unavailable("Firestore answers without saying what time it is")
        return now

    def changed(self) -> Hashable:
        """See `Store.changed`. Nobody asks the server: it differs each time."""
        self._calls.check_open()
        return next(self._looks)

    def close(self) -> None:
        """See `Store.close`."""
        self._pool.shutdown()
        self._calls.close()
