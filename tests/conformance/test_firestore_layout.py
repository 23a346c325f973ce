"""How records lie in Firestore: names, shards, sizes as the server counts them, values that would break a careless driver."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue
from pydantic_core import from_json

from asyncflow import limits
from asyncflow.errors import Malformed, TooLarge, Unavailable
from runner.stores import open_store
from runner.stores.base import RECORD_BYTES_MAX, Failed, Key, Saved, Store, Write
from runner.stores.firestore_calls import FirestoreCalls
from runner.stores.firestore_clock import ServerClock
from runner.stores.firestore_layout import SHARDS, document_id, key_of, shard_of, shards_of, sortable
from runner.stores.firestore_rows import ENTRIES_BYTES_MAX
from runner.stores.firestore_url import FirestoreUrl, parse_url
from runner.stores.firestore_values import DOCUMENT_BYTES_MAX, Document, DocumentWrite, document_bytes, mapping, scalar, text, words
from tests.conformance.records import HOUR, NOW, ORDER, SECOND, create, entries, failed, ids, listed, numbers, read, record, save
from tests.servers.firestore import SERVER, firestore_url

__all__ = ["firestore_url"]

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
LABELS = (
    st.none()
    | st.booleans()
    | st.integers(-limits.JSON_INTEGER_MAX, limits.JSON_INTEGER_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
)
JSON = st.recursive(
    LABELS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.just("") | st.just("__a__"), inner),
    max_leaves=20,
)


@pytest.fixture
def store(firestore_url: str) -> Iterator[Store]:
    opened = open_store(firestore_url)
    yield opened
    opened.close()


def count_calls(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    """Note each call of that name from now on, with the number of documents it names or writes."""
    call = getattr(FirestoreCalls, name)
    noted: list[int] = []

    def note(calls: FirestoreCalls, what: Sequence[Any], *arguments: Any) -> Any:
        noted.append(len(what))
        return call(calls, what, *arguments)

    monkeypatch.setattr(FirestoreCalls, name, note)
    return noted


def calls_of(store: Store) -> FirestoreCalls:
    calls: FirestoreCalls = store._calls  # type: ignore[attr-defined]
    return calls


# -- names and URLs ----------------------------------------------------------------------------------------------------


@given(workflow=st.text(max_size=20), id=st.text(max_size=20))
def test_a_name_leads_back_to_its_instance(workflow: str, id: str) -> None:
    name = document_id(workflow, id)
    assert key_of(f"projects/p/databases/d/documents/orders/{name}") == Key(workflow, id)
    assert key_of(f"projects/p/databases/d/documents/orders/{name}/orders-history/abc-0001") == Key(workflow, id)
    assert "/" not in name
    assert not (name.startswith("__") and name.endswith("__"))


IDS = st.text("09AZ_az-", min_size=1, max_size=5)


@given(pairs=st.lists(st.tuples(IDS, IDS), min_size=2))
def test_names_are_ordered_as_instances_are_listed(pairs: list[tuple[str, str]]) -> None:
    assert sorted(pairs) == sorted(pairs, key=lambda pair: document_id(pair[1], pair[0]))


@given(st.lists(st.tuples(st.sampled_from(["A", "A/1", "B"]), st.datetimes(timezones=st.just(UTC)))))
def test_what_is_sorted_by_keeps_the_workflows_apart_and_the_times_in_order(moments: list[tuple[str, datetime]]) -> None:
    def micros(at: datetime) -> int:
        return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

    texts = [sortable(workflow, micros(at)) for workflow, at in moments]
    for workflow in {workflow for workflow, _ in moments}:
        own = sorted(at for name, at in moments if name == workflow)
        last = sortable(workflow, micros(datetime.max.replace(tzinfo=UTC)))
        assert sorted(one for one in texts if sortable(workflow) <= one <= last) == [sortable(workflow, micros(at)) for at in own]


def test_an_instance_is_always_in_the_same_shard() -> None:
    assert [shard_of("PizzaOrder", f"o-{number}") for number in range(4)] == [
        "PizzaOrder/4", "PizzaOrder/2", "PizzaOrder/0", "PizzaOrder/6",
    ]  # fmt: skip
    used = {shard_of("PizzaOrder", f"{number:x}") for number in range(200)}
    assert used == set(shards_of(["PizzaOrder"]))
    assert len(used) == SHARDS == 8


@pytest.mark.parametrize(
    "rest, expected",
    [
        ("my-project/orders", FirestoreUrl("my-project", "orders", "(default)")),
        ("my-project/orders?database=eu", FirestoreUrl("my-project", "orders", "eu")),
        ("my-project/orders?database=(default)", FirestoreUrl("my-project", "orders", "(default)")),
        ("my-project/orders?database=%28default%29", FirestoreUrl("my-project", "orders", "(default)")),
        ("my-project/orders?", FirestoreUrl("my-project", "orders")),
        ("example.com:my-project/my_orders-2", FirestoreUrl("example.com:my-project", "my_orders-2")),
    ],
)
def test_a_url_names_project_collection_and_database(rest: str, expected: FirestoreUrl) -> None:
    assert parse_url(rest) == expected


@pytest.mark.parametrize(
    "rest",
    [
        "", "my-project", "my-project/", "/orders", "my-project/orders/more", "my-project/orders/o-1/lines", "my-project/a b",
        "my-project/__orders__", "my-project/orders?database=", "my-project/orders?database=a&database=b",
        "my-project/orders?project=x", "my-project/orders?database=a/b", "ann:secret@my-project/orders", "my-project/orders#x",
    ],
)  # fmt: skip
def test_what_is_no_url_is_refused_without_its_secrets(rest: str) -> None:
    with pytest.raises(Malformed, match="firestore://PROJECT/COLLECTION") as refused:
        open_store(f"firestore://{rest}")
    assert "secret" not in refused.value.message


# -- the clock ---------------------------------------------------------------------------------------------------------

SERVER_TIME = 1_769_850_000_000_000


class Monotonic:
    """A monotonic clock that a test moves, in seconds."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        return self.at


def clock_of(monotonic: Monotonic, host: datetime = NOW) -> ServerClock:
    return ServerClock(host=lambda: host, monotonic=monotonic)


def at(clock: ServerClock) -> int:
    now = clock.now()
    assert now is not None
    return round((now - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) - SERVER_TIME


def test_the_clock_goes_on_from_the_last_answer() -> None:
    monotonic = Monotonic()
    clock = clock_of(monotonic)
    assert clock.now() is None
    clock.hear(SERVER_TIME, monotonic.at)
    monotonic.at += 2.5
    assert at(clock) == 2_500_000


def test_a_slow_answer_moves_nothing_and_a_quick_one_little() -> None:
    monotonic = Monotonic()
    clock = clock_of(monotonic)
    clock.hear(SERVER_TIME, monotonic.at)
    monotonic.at += 10
    clock.hear(SERVER_TIME + 3_000_000, monotonic.at - 8)  # it took 8 s, and was made after 1 of them
    assert at(clock) == 10_000_000
    monotonic.at += 10
    clock.hear(SERVER_TIME + 20_500_000, monotonic.at)  # the host's clock is too slow
    assert at(clock) == 20_500_000


def test_the_clock_never_goes_back() -> None:
    monotonic = Monotonic()
    clock = clock_of(monotonic)
    clock.hear(SERVER_TIME, monotonic.at)
    monotonic.at += 10
    before = at(clock)
    clock.hear(SERVER_TIME + 9_000_000, monotonic.at)  # the host's clock is too quick
    assert at(clock) == before
    monotonic.at += 1.5
    assert at(clock) == 10_500_000


@pytest.mark.parametrize("seconds, told", [(0, False), (-4.9, False), (4.9, False), (-5.1, True), (5.1, True), (-86_400, True)])
def test_a_skew_over_five_seconds_is_told(seconds: float, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    monotonic = Monotonic()
    host = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=SERVER_TIME) + timedelta(seconds=seconds)
    clock = clock_of(monotonic, host)
    with caplog.at_level(logging.WARNING):
        clock.hear(SERVER_TIME, monotonic.at)
        clock.hear(SERVER_TIME, monotonic.at)
    assert len(caplog.records) == told


def test_an_old_answer_is_no_skew(caplog: pytest.LogCaptureFixture) -> None:
    monotonic = Monotonic()
    clock = clock_of(monotonic, datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=SERVER_TIME + 9_000_000))
    clock.hear(SERVER_TIME, monotonic.at - 9)
    assert not caplog.records


@SERVER
def test_the_store_has_the_servers_clock(firestore_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = count_calls(monkeypatch, "fetch_all")
    fresh = open_store(firestore_url)
    assert not asked, "opening asks nothing"
    assert fresh.now() <= fresh.now()
    assert len(asked) == 1, "a handle that has had no answer makes one read"
    fresh.close()
    warm = open_store(firestore_url)
    create(warm, record())
    warm.now()
    assert len(asked) == 1
    warm.close()


@SERVER
def test_a_clock_that_is_given_is_gone_by(firestore_url: str) -> None:
    store = open_store(firestore_url, clock=lambda: NOW)
    assert store.now() == NOW
    store.close()


@SERVER
def test_a_closed_handle_has_no_clock(firestore_url: str) -> None:
    store = open_store(firestore_url)
    store.close()
    with pytest.raises(Unavailable):
        store.now()


# -- sizes -------------------------------------------------------------------------------------------------------------


def written(store: Store, id: str, fields: dict[str, Any]) -> bool:
    """Write a document past the driver, and tell whether the server takes it."""
    calls = calls_of(store)
    name = f"{calls.url.root}/{calls.url.collection}/{id}"
    try:
        calls.commit([DocumentWrite(update=Document(name=name, fields=fields))])
    except TooLarge:
        return False
    return True


@SERVER
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"number": scalar(1), "price": scalar(2.5), "vip": scalar(True), "nothing": scalar(None)},
        {"ä": text("🍕".encode()), "holders": words(["host-1", "ß"])},
        {"bytes": text(b"\xff\xfe")},
    ],
)
def test_a_document_is_counted_as_the_server_counts(store: Store, fields: dict[str, Any]) -> None:
    collection = calls_of(store).url.collection
    for id_ in ("o", "o" * 150):
        rest = DOCUMENT_BYTES_MAX - document_bytes(f"{collection}/{id_}", {**fields, "f": text(b""), "g": text(b"")})
        half = rest // 2
        assert written(store, id_, {**fields, "f": text(b"x" * half), "g": text(b"x" * (rest - half))})
        assert not written(store, id_, {**fields, "f": text(b"x" * half), "g": text(b"x" * (rest - half + 1))})


@SERVER
def test_a_map_is_never_counted_too_small(store: Store) -> None:
    fields = {"labels": mapping({f"label {number}": number for number in range(100)}), "f": text(b"")}
    rest = DOCUMENT_BYTES_MAX - document_bytes(f"{calls_of(store).url.collection}/o", fields)
    assert written(store, "o", {**fields, "f": text(b"x" * (rest - 24_000)), "g": text(b"x" * 23_990)})


@SERVER
def test_the_largest_record_is_kept_with_labels_and_beyond_them_it_is_too_large(store: Store) -> None:
    state = b"s" * RECORD_BYTES_MAX
    largest = record("l" * limits.ID_CHARACTERS, document=b"", state=state, labels={"note": "x" * 20_000})
    create(store, largest)
    assert read(store, largest.id) == largest
    for labels in ({"note": "x" * 25_000}, {f"label {number}": number for number in range(1_500)}):
        error = failed(store.commit([Write(record("o-2", document=b"", state=state, labels=labels), None)])[0])
        assert isinstance(error, TooLarge)
        assert "its labels are too large" in error.message
    assert store.get(ORDER, "o-2") is None


def large(count: int, size: int) -> list[Mapping[str, JsonValue]]:
    return [{"n": number, "input": "x" * size} for number in range(1, count + 1)]


@SERVER
def test_many_entries_of_one_write_lie_in_several_documents(store: Store) -> None:
    long = large(8, 300_000)
    at = create(store, record(), long)
    at = save(store, record(rev=2), at, entries(9))
    assert numbers(store) == list(range(1, 10))
    first = store.history(ORDER, "o-1", page_size=2)
    assert [entry["n"] for entry in first.entries] == [1, 2]
    assert len(str(first.entries[0]["input"])) == 300_000 < ENTRIES_BYTES_MAX
    assert store.delete(ORDER, "o-1", at)
    assert numbers(store) == []


@SERVER
def test_more_than_one_request_takes_is_too_large(store: Store) -> None:
    for count in (7, 40):  # over what the emulator takes, and over what Firestore does
        assert isinstance(failed(store.commit([Write(record(), None, large(count, 800_000))])[0]), TooLarge)
    assert isinstance(failed(store.commit([Write(record(), None, large(1, 1_100_000))])[0]), TooLarge)
    assert store.get(ORDER, "o-1") is None
    assert numbers(store) == []


@SERVER
def test_a_long_history_is_deleted_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.stores.firestore_history.DELETES_MAX", 5)
    at = create(store, record(), entries(1))
    for number in range(2, 14):
        at = save(store, record(rev=number), at, entries(number))
    commits = count_calls(monkeypatch, "commit")
    assert store.delete(ORDER, "o-1", at)
    assert commits == [6, 5, 3]
    assert numbers(store) == []


@SERVER
def test_what_a_crash_left_of_a_history_is_not_shown_by_the_next_instance(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.stores.firestore_history.DELETES_MAX", 2)
    at = create(store, record(), entries(1))
    for number in range(2, 6):
        at = save(store, record(rev=number, status="Finished"), at, entries(number))
    commit = FirestoreCalls.commit

    def crash_after_the_first(calls: FirestoreCalls, writes: list[Any]) -> list[int]:
        monkeypatch.setattr(FirestoreCalls, "commit", None)
        return commit(calls, writes)

    monkeypatch.setattr(FirestoreCalls, "commit", crash_after_the_first)
    with pytest.raises(TypeError):
        store.delete(ORDER, "o-1", at)
    monkeypatch.setattr(FirestoreCalls, "commit", commit)
    assert store.get(ORDER, "o-1") is None
    create(store, record(), entries(1))
    assert numbers(store) == [1]
    assert store.prune_history([ORDER], before=NOW + HOUR) == 0, "it lives"
    assert numbers(store) == [1]


# -- values ------------------------------------------------------------------------------------------------------------


@SERVER
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(labels=st.dictionaries(NAMES, LABELS, max_size=5), texts=st.tuples(st.binary(), st.binary()), entry=JSON)
def test_whatever_is_json_is_kept(store: Store, labels: dict[str, Any], texts: tuple[bytes, bytes], entry: Any) -> None:
    assume(not any(name.startswith("__") and name.endswith("__") for name in labels))
    stored = store.get(ORDER, "o-1")
    if stored is not None:
        store.delete(ORDER, "o-1", stored.revision)
    whole = record(labels=labels, document=texts[0], state=texts[1])
    create(store, whole, [{"n": 1, "input": entry}])
    assert read(store) == whole
    found = read(store).labels
    assert {name: type(value) for name, value in found.items()} == {name: type(value) for name, value in labels.items()}
    assert store.history(ORDER, "o-1").entries[0]["input"] == from_json(json.dumps(entry))


@SERVER
@pytest.mark.parametrize("name", ["", "__a__", "x" * 1_501])
def test_a_label_that_firestore_cannot_name_is_refused_alone(store: Store, name: str) -> None:
    writes = [Write(record("before"), None), Write(record("bad", labels={name: 1}), None), Write(record("after"), None)]
    outcomes = store.commit(writes)
    assert [type(outcome) for outcome in outcomes] == [Saved, Failed, Saved]
    assert isinstance(failed(outcomes[1]), Malformed)


@SERVER
def test_a_label_too_long_for_an_index_is_kept_and_not_asked_for(store: Store) -> None:
    long = "x" * 1_600
    create(store, record(labels={"note": long}))
    assert read(store).labels == {"note": long}
    with pytest.raises(Malformed, match=r"more than 1500 bytes: labels\.note"):
        store.list([ORDER], filter=f"labels.note = {long}")


# -- questions ---------------------------------------------------------------------------------------------------------


@SERVER
def test_due_work_of_many_workflows_is_merged(store: Store) -> None:
    names = [f"W{number}" for number in range(7)]  # 56 shards: two queries
    for number in range(42):
        create(store, record(f"i-{number}", names[number % 7], due_at=NOW + (number * 5 % 42) * SECOND))
    found = store.due(names, now=NOW + HOUR, limit=50)
    assert ids(found) == [f"i-{number}" for number in sorted(range(42), key=lambda number: number * 5 % 42)]
    assert store.due(names, now=NOW + HOUR, limit=5) == found[:5]
    assert store.next_due(names) == NOW
    assert store.next_due(names[1:]) == NOW + SECOND


@SERVER
def test_lists_of_more_workflows_than_one_query_takes_are_merged(store: Store) -> None:
    names = [f"W{number:02d}" for number in range(65)]
    outcomes = store.commit([
        Write(record(f"i-{number:02d}", name, created_at=NOW + (number * 7 % 65) * SECOND, labels={"a": number % 2}), None)
        for number, name in enumerate(names)
    ])  # fmt: skip
    assert all(isinstance(outcome, Saved) for outcome in outcomes)
    expected = [f"i-{number:02d}" for number in sorted(range(65), key=lambda number: -(number * 7 % 65))]
    assert listed(store, names, page_size=10) == expected
    assert listed(store, page_size=10) == expected
    odd = [name for name in expected if int(name[2:]) % 2]
    assert listed(store, names, page_size=10, filter="labels.a = 1") == odd
    assert listed(store, filter="labels.a = 1", page_size=10) == odd


@SERVER
def test_conditions_that_exclude_each_other_ask_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    create(store, record(labels={"a": 1}))
    monkeypatch.setattr(FirestoreCalls, "query", None)
    for text_ in (
        "status = Running AND status = Failed",
        "labels.a = 1 AND labels.a = true",
        "created_at > 2026-01-31T09:00:01Z AND created_at < 2026-01-31T09:00:01Z",
        "created_at < 0001-01-01T00:00:00Z",
    ):
        assert store.list([ORDER], filter=text_).items == ()
    assert store.list([ORDER], status="Failed", filter="status = Running").items == ()
    assert store.list([]).items == ()


@SERVER
def test_many_are_loaded_in_one_call(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        create(store, record(name, state=name.encode()))
    calls = count_calls(monkeypatch, "fetch_all")
    found = store.get_many([(ORDER, name) for name in ("c", "nobody", "a", "c")])
    assert [one and one.record.state for one in found] == [b"c", None, b"a", b"c"]
    assert calls == [3]
    assert store.get_many([]) == []
    assert found[0] == store.get(ORDER, "c")
