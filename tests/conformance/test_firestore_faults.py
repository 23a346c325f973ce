"""Answers that are lost, servers that are away, errors of Firestore: what the driver says is true, and says what to do."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import google.auth
import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError

from asyncflow.errors import AsyncflowError, Malformed, TooLarge, Unavailable
from runner.stores import firestore_calls, open_store
from runner.stores.base import Conflict, Exists, Failed, Outcome, Saved, Store, Write
from runner.stores.firestore_calls import TRIES, FirestoreCalls
from tests.conformance.records import NOW, ORDER, create, entries, numbers, read, record, revision, save
from tests.servers.firestore import SERVER, VARIABLE, emulator, new_url
from tests.servers.firestore_proxy import Cut, Proxy

pytestmark = SERVER


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firestore_calls, "WAIT_SECONDS", 0.001)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy(emulator()) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store behind the proxy."""
    opened = open_store(new_url(monkeypatch, proxy.host))
    yield opened
    proxy.plan = lambda number: None
    opened.close()


@pytest.fixture
def direct(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The same store without the proxy: another process."""
    monkeypatch.setenv(VARIABLE, emulator())
    url = store._url  # type: ignore[attr-defined]
    opened = open_store(f"firestore://{url.project}/{url.collection}")
    yield opened
    opened.close()


api: Any = exceptions  # untyped


def doubtful(outcome: Outcome) -> bool:
    return isinstance(outcome, Failed) and outcome.in_doubt and outcome.error.details == {"in_doubt": True}


# -- answers that are lost ---------------------------------------------------------------------------------------------


def test_a_save_whose_answer_was_lost_is_in_doubt_and_its_echo_is_no_conflict(proxy: Proxy, store: Store, direct: Store) -> None:
    at = create(direct, record(), entries(1))
    proxy.cut_next(Cut.AFTER)
    assert doubtful(store.commit([Write(record(rev=2), at, entries(2))])[0])
    assert proxy.requests == 2, "the second try met the first one's write"
    assert read(direct).rev == 2
    assert numbers(direct) == [1, 2]


def test_a_create_whose_answer_was_lost_is_in_doubt(proxy: Proxy, store: Store, direct: Store) -> None:
    proxy.cut_next(Cut.AFTER)
    assert doubtful(store.commit([Write(record(), None, entries(1))])[0])
    assert read(direct) == record()
    assert store.commit([Write(record(), None)]) == [Exists()]


def test_a_request_that_was_cut_off_is_made_again(proxy: Proxy, store: Store, direct: Store) -> None:
    at = create(direct, record())
    proxy.cut_next(Cut.BEFORE, Cut.BEFORE)
    at = save(store, record(rev=2), at, entries(1))
    assert proxy.requests == 3
    assert revision(direct) == at
    assert numbers(direct) == [1]


def test_after_the_last_try_it_is_in_doubt(proxy: Proxy, store: Store, direct: Store) -> None:
    at = create(direct, record())
    proxy.plan = lambda number: Cut.BEFORE
    assert doubtful(store.commit([Write(record(rev=2), at)])[0])
    assert proxy.requests == TRIES
    assert read(direct).rev == 1


def test_no_answer_at_all_is_in_doubt_too(proxy: Proxy, store: Store, direct: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    at = create(direct, record())
    revision(store)  # connected
    monkeypatch.setattr(firestore_calls, "CALL_SECONDS", 0.5)
    proxy.cut_next(*[Cut.SILENCE] * TRIES)
    assert doubtful(store.commit([Write(record(rev=2), at)])[0])
    assert read(direct).rev == 2


def test_a_conflict_without_a_doubt_is_one(proxy: Proxy, store: Store, direct: Store) -> None:
    stale = create(direct, record())
    save(direct, record(rev=2), stale)
    assert store.commit([Write(record(rev=3), stale)]) == [Conflict()]
    assert proxy.requests == 1


def test_reads_are_made_again(proxy: Proxy, store: Store, direct: Store) -> None:
    create(direct, record(due_at=NOW), entries(1))
    asked: list[Callable[[], int]] = [
        lambda: read(store).rev,
        lambda: len(store.list([ORDER]).items),
        lambda: len(store.due([ORDER], now=NOW, limit=9)),
    ]
    for ask in asked:
        proxy.cut_next(Cut.AFTER, Cut.BEFORE)
        assert ask() == 1
    assert proxy.cuts == 6


def test_other_changes_say_so_when_they_are_in_doubt(proxy: Proxy, store: Store, direct: Store) -> None:
    create(direct, record("parked"))
    create(direct, record("deferred"))
    create(direct, record("deleted"), entries(1))
    at = {name: revision(direct, name) for name in ("parked", "deferred", "deleted")}
    changes: list[Callable[[], bool]] = [
        lambda: store.park(ORDER, "parked", at["parked"], "why"),
        lambda: store.defer(ORDER, "deferred", at["deferred"], until=NOW),
        lambda: store.delete(ORDER, "deleted", at["deleted"]),
    ]
    for change in changes:
        proxy.cut_next(None, Cut.AFTER)  # each of them reads first
        with pytest.raises(Unavailable) as raised:
            change()
        assert raised.value.details == {"in_doubt": True}
    stored = [direct.get(ORDER, name) for name in ("parked", "deferred", "deleted")]
    assert [one and (one.reason, one.tries) for one in stored] == [("why", 0), (None, 1), None]
    assert numbers(direct, "deleted") == []


def test_each_of_many_saves_at_once_answers_the_truth(proxy: Proxy, store: Store, direct: Store) -> None:
    first = {f"o-{number}": create(direct, record(f"o-{number}")) for number in range(40)}
    writes = [Write(record(name, rev=2), at, entries(2)) for name, at in first.items()]
    proxy.plan = lambda number: (Cut.AFTER if number % 14 else Cut.BEFORE) if number % 7 == 0 else None
    outcomes = dict(zip(first, store.commit(writes), strict=True))
    assert any(doubtful(outcome) for outcome in outcomes.values())
    for name, outcome in outcomes.items():
        there = direct.get(ORDER, name)
        assert there is not None
        if isinstance(outcome, Saved):
            assert there.revision == outcome.revision
        else:
            assert doubtful(outcome), outcome
        assert numbers(direct, name) == [2] * (there.record.rev - 1)


# -- servers that are away ---------------------------------------------------------------------------------------------


def test_a_server_that_is_away_is_unavailable_and_found_again(proxy: Proxy, store: Store) -> None:
    at = create(store, record())
    proxy.go_away()
    with pytest.raises(Unavailable, match="does not answer"):
        store.get(ORDER, "o-1")
    assert doubtful(store.commit([Write(record(rev=2), at)])[0])
    proxy.away = False
    until = time.monotonic() + 30
    while not back(store):
        assert time.monotonic() < until
    assert read(store).rev == 1


def back(store: Store) -> bool:
    try:
        return store.get(ORDER, "o-1") is not None
    except Unavailable:
        return False


def test_what_is_on_its_way_when_the_handle_is_closed_is_told_the_truth(direct: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = {f"o-{number}": create(direct, record(f"o-{number}")) for number in range(30)}
    url = direct._url  # type: ignore[attr-defined]
    store = open_store(f"firestore://{url.project}/{url.collection}")
    begun = threading.Event()
    commit = FirestoreCalls.commit

    def note(calls: FirestoreCalls, writes: Sequence[Any]) -> list[int]:
        begun.set()
        return commit(calls, writes)

    monkeypatch.setattr(FirestoreCalls, "commit", note)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(store.commit, [Write(record(name, rev=2), at) for name, at in first.items()])
        begun.wait()
        store.close()
        outcomes = dict(zip(first, future.result(), strict=True))
    for name, outcome in outcomes.items():
        if isinstance(outcome, Saved):
            assert read(direct, name).rev == 2
        else:
            assert isinstance(outcome, Failed)
            assert outcome.in_doubt or read(direct, name).rev == 1


# -- errors of Firestore -----------------------------------------------------------------------------------------------


class Answering:
    """A client that answers as the server would, errors for the most part."""

    def __init__(self, client: Any, *errors: Exception) -> None:
        self._client = client
        self._errors = list(errors)
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        def call(**arguments: Any) -> Any:
            assert arguments["retry"] is None
            assert arguments["timeout"] <= firestore_calls.CALL_SECONDS
            self.asked += 1
            if self._errors:
                raise self._errors.pop(0) if len(self._errors) > 1 else self._errors[0]
            return getattr(self._client, name)(**arguments)

        return call if name in ("commit", "batch_get_documents", "run_query") else getattr(self._client, name)


def answering(store: Store, *errors: Exception) -> Answering:
    """Let the store meet *errors*, the last of them for ever."""
    calls = store._calls  # type: ignore[attr-defined]
    calls._client = Answering(calls._client_now(), *errors)
    client: Answering = calls._client
    return client


def healed(client: Answering) -> None:
    client._errors.clear()


def error_of(store: Store) -> AsyncflowError:
    with pytest.raises(AsyncflowError) as raised:
        store.get(ORDER, "o-1")
    return raised.value


@pytest.mark.parametrize(
    "error, says, tries",
    [
        (api.PermissionDenied("Missing or insufficient permissions."), "roles/datastore.user", 1),
        (api.Unauthenticated("Request had invalid authentication credentials."), "log in again", 1),
        (api.NotFound("The database orders does not exist for project p."), "no such database: make it", 1),
        (api.FailedPrecondition("The query requires an index. You can create it here: https://console"), "indexes.json", 1),
        (api.FailedPrecondition("The Cloud Firestore API is not available for Firestore in Datastore Mode"), "native mode", 1),
        (api.ResourceExhausted("Quota exceeded."), "a quota is used up", TRIES),
        (api.ServiceUnavailable("failed to connect"), "does not answer", TRIES),
        (api.DeadlineExceeded("Deadline Exceeded"), "does not answer", TRIES),
        (api.InternalServerError("stream removed"), "does not answer", TRIES),
    ],
)
def test_an_error_says_what_to_do(store: Store, error: Exception, says: str, tries: int) -> None:
    client = answering(store, error)
    told = error_of(store)
    assert isinstance(told, Unavailable)
    assert says in told.message
    assert str(error) in told.message
    assert client.asked == tries
    outcome = store.commit([Write(record(), None)])[0]
    assert isinstance(outcome, Failed)
    assert outcome.in_doubt == (tries > 1 and not isinstance(error, api.ResourceExhausted))
    assert outcome.in_doubt or says in outcome.error.message


def test_contention_is_tried_again_and_never_a_doubt(store: Store) -> None:
    aborted = api.Aborted("Too much contention on these documents. Please try again.")
    client = answering(store, aborted)
    outcome = store.commit([Write(record(), None)])[0]
    assert isinstance(outcome, Failed)
    assert not outcome.in_doubt
    assert "too many write" in outcome.error.message
    assert client.asked == TRIES
    healed(client)
    create(store, record())


def test_a_refusal_after_a_lost_answer_is_a_doubt(store: Store) -> None:
    at = create(store, record())
    for second in (
        api.FailedPrecondition("the stored version does not match"),
        api.PermissionDenied("no"),
        api.Aborted("contention"),
    ):
        client = answering(store, api.ServiceUnavailable("lost"), second)
        assert doubtful(store.commit([Write(record(rev=2), at)])[0])
        healed(client)


def test_what_is_too_large_for_the_server_is_not_tried_again(store: Store) -> None:
    for error in (
        api.InvalidArgument("maximum entity size is 1048576 bytes"),
        api.InvalidArgument('The value of property "state" is longer than 1048487 bytes.'),
        api.ResourceExhausted("gRPC message exceeds maximum size 4194304: 5000000"),
    ):
        client = answering(store, error)
        outcome = store.commit([Write(record(), None)])[0]
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, TooLarge)
        assert client.asked == 1
        healed(client)


def test_a_value_that_the_server_refuses_is_malformed(store: Store) -> None:
    answering(store, api.InvalidArgument("field name '__a__' is reserved."))
    outcome = store.commit([Write(record(), None)])[0]
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, Malformed)


def test_tries_end_in_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = store._calls  # type: ignore[attr-defined]
    client = answering(store, api.ServiceUnavailable("away"))
    seconds = iter(range(0, 1_000, 15))
    monkeypatch.setattr(calls.clock, "monotonic", lambda: float(next(seconds)))
    error_of(store)
    assert client.asked < TRIES


def test_without_credentials_it_says_where_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_found(**arguments: Any) -> None:
        raise DefaultCredentialsError("Your default credentials were not found.")  # type: ignore[no-untyped-call]

    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(google.auth, "default", nothing_found)
    with pytest.raises(Unavailable, match=r"gcloud auth application-default login.*FIRESTORE_EMULATOR_HOST"):
        open_store("firestore://demo-x/instances")


def test_with_credentials_it_is_ready_for_google_and_has_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(google.auth, "default", lambda **arguments: (AnonymousCredentials(), None))  # type: ignore[no-untyped-call]
    store = open_store("firestore://demo-x/instances?database=europe")
    calls = store._calls  # type: ignore[attr-defined]
    assert calls._client.transport.host == "firestore.googleapis.com:443"
    assert calls._metadata == [("google-cloud-resource-prefix", "projects/demo-x/databases/europe")]
    store.close()


# -- many at once ------------------------------------------------------------------------------------------------------


def test_eight_writers_of_one_instance_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    url = new_url(monkeypatch)
    stores = [open_store(url) for _ in range(8)]
    create(stores[0], record(rev=0))
    start = threading.Barrier(8)

    def count_up(store: Store) -> None:
        start.wait()
        for _ in range(10):
            outcome: Outcome = Conflict()
            while not isinstance(outcome, Saved):
                assert outcome == Conflict()
                stored = store.get(ORDER, "o-1")
                assert stored is not None
                number = stored.record.rev + 1
                outcome = store.commit([Write(replace(stored.record, rev=number), stored.revision, entries(number))])[0]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count_up, stores))
    assert read(stores[0]).rev == 80
    assert numbers(stores[1]) == list(range(1, 81))
    for store in stores:
        store.close()


def test_a_host_with_a_wrong_clock_is_told_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = store._calls  # type: ignore[attr-defined]
    monkeypatch.setattr(calls.clock, "_host", lambda: NOW)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            store.get(ORDER, "o-1")
    assert len(caplog.records) == 1
    assert "behind Firestore's" in caplog.text
    assert store.now() != NOW
