"""The document as JSON and back: every field of a random instance survives (rules 1, 2, 4, 5)."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from asyncflow import Failure, Status, Unavailable
from asyncflow.codec import decode, document, encode
from asyncflow.instance import (
    FORMAT_VERSION,
    Cancelling,
    Control,
    Failing,
    Frame,
    Instance,
    Lease,
    Message,
    Seen,
    Signal,
    Stray,
    Thread,
    ThreadStatus,
    Undo,
)
from asyncflow.limits import JSON_INTEGER_MAX

TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds have none
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
COUNTS = st.integers(0, JSON_INTEGER_MAX)
SCALARS = st.none() | st.booleans() | st.integers(-JSON_INTEGER_MAX, JSON_INTEGER_MAX) | TEXTS
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | FLOATS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
JSON_TEXTS = VALUES.map(to_json)
KEYS = TEXTS | COUNTS


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


FAILURES = st.builds(
    Failure,
    type=TEXTS,
    bases=st.lists(TEXTS, max_size=2),
    message=TEXTS,
    code=st.integers(100, 599),
    details=VALUES,
    path=TEXTS,
    attempt=COUNTS,
    at=TIMES,
    traceback=TEXTS,
)
SIGNALS = st.builds(
    Signal,
    kind=st.sampled_from(["next", "return", "break", "continue", "raise"]),
    value=VALUES,
    failure=maybe(FAILURES),
)
UNDOS = st.builds(Undo, at=TEXTS, visit=COUNTS, done=COUNTS, items=st.lists(st.tuples(TEXTS, KEYS, VALUES), max_size=2))
FRAMES = st.builds(
    Frame,
    at=TEXTS,
    items=st.lists(st.tuples(TEXTS, KEYS), max_size=2),
    undos=st.lists(UNDOS, max_size=2),
    keys=maybe(st.lists(TEXTS, max_size=2)),
    key=maybe(KEYS),
    begun=COUNTS,
    size=COUNTS,
    phase=st.sampled_from(["", "undo", "except", "finally", "ending"]),
    before=st.sampled_from(["", "except", "finally", "ending"]),
    error=maybe(FAILURES),
    after=maybe(SIGNALS),
    cancelled=st.booleans(),
)
LEASES = st.builds(
    Lease,
    token=TEXTS,
    till=maybe(TIMES),
    by=maybe(TEXTS.filter(bool)),
    alone=st.booleans(),
    cancel=st.booleans(),
    grace=maybe(TIMES),
)
THREADS = st.builds(
    Thread,
    id=TEXTS,
    name=TEXTS,
    root=TEXTS,
    status=st.sampled_from(ThreadStatus),
    position=TEXTS,
    visit=COUNTS,
    since=TIMES,
    parent=maybe(st.tuples(TEXTS, COUNTS)),
    deadlines=maybe(st.dictionaries(TEXTS, maybe(TIMES), max_size=3)),
    attempt=COUNTS,
    retry_at=maybe(TIMES),
    doubt=st.booleans(),
    losses=COUNTS,
    error=maybe(FAILURES),
    result=maybe(JSON_TEXTS),
    lease=maybe(LEASES),
    stray=maybe(st.builds(Stray, tries=COUNTS, retry_at=TIMES)),
    frames=st.lists(FRAMES, min_size=1, max_size=3),
)
MESSAGES = st.builds(
    Message,
    id=TEXTS,
    kind=st.sampled_from(["event", "result", "lapse", "cancel", "pause", "resume", "retry", "skip"]),
    at=TIMES,
    caller=maybe(TEXTS),
    thread=maybe(TEXTS),
    name=TEXTS,
    value=maybe(JSON_TEXTS),
    keyed=st.booleans(),
    hash=TEXTS,
    lain=st.just(True),
    token=TEXTS,
    failure=maybe(FAILURES),
    lost=st.booleans(),
    took_ms=maybe(st.floats(0, 1e9)),
    fault=st.booleans(),
)
ANSWERED = st.builds(Seen, id=TEXTS, at=TIMES, hash=TEXTS, status=st.integers(200, 599), answer=VALUES)
DROPPED = st.builds(Seen, id=TEXTS, at=TIMES, hash=TEXTS, status=st.integers(200, 599), dropped=st.just(True))
CONTROLS = st.builds(
    Control,
    pause=maybe(TIMES),
    cancel=maybe(st.builds(Cancelling, since=TIMES, pc=COUNTS, main=maybe(SIGNALS), error=maybe(FAILURES))),
    failing=maybe(st.builds(Failing, since=TIMES, thread=TEXTS, error=FAILURES)),
)
INSTANCES = st.builds(
    Instance,
    workflow=TEXTS,
    id=TEXTS,
    uid=TEXTS,
    created_at=TIMES,
    updated_at=TIMES,
    state=st.dictionaries(TEXTS, VALUES, max_size=2).map(to_json),
    status=st.sampled_from(Status),
    input=VALUES,
    output=VALUES,
    error=maybe(FAILURES),
    threads=st.lists(THREADS, max_size=2).map(lambda threads: {thread.id: thread for thread in threads}),
    inbox=st.lists(MESSAGES, max_size=2),
    outbox=st.lists(VALUES, max_size=1),
    promises=st.dictionaries(TEXTS, VALUES, max_size=1),
    seen=st.lists(st.builds(Seen, id=TEXTS) | ANSWERED | DROPPED, max_size=3),
    control=CONTROLS,
    undos=st.lists(UNDOS, max_size=2),
    pc=COUNTS,
    rev=COUNTS,
    entries=COUNTS,
    due_at=maybe(TIMES),
    labels=st.dictionaries(TEXTS, SCALARS, max_size=2),
    expires_at=maybe(TIMES),
    start_key=maybe(st.tuples(TEXTS, TEXTS)),
)


@given(INSTANCES)
def test_an_instance_survives_its_json(instance: Instance) -> None:
    text = encode(instance)
    assert decode(text, instance.state) == instance
    assert decode(from_json(text), instance.state) == instance
    assert encode(decode(text, instance.state)) == text


@given(THREADS)
def test_every_part_of_a_thread_survives_alone(thread: Thread) -> None:
    now = datetime(2024, 1, 1, tzinfo=UTC)
    instance = Instance("W", "i", "u", now, now, threads={thread.id: thread})
    assert decode(encode(instance), b"{}").threads == {thread.id: thread}


@given(INSTANCES)
def test_the_document_is_json_that_every_parser_reads(instance: Instance) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    whole = json.loads(encode(instance), parse_constant=refuse)
    assert {**whole, "state": from_json(instance.state)} == document(instance)


@given(INSTANCES)
def test_a_decoded_instance_owns_its_data(instance: Instance) -> None:
    values = from_json(encode(instance))
    decoded = decode(values, instance.state)
    values["threads"].clear()
    values.pop("labels", {}).clear()
    for one in values.get("undos", []):
        one["items"] = None
    assert decoded == instance


def test_what_is_empty_is_left_out() -> None:
    now = datetime(2024, 1, 1, tzinfo=UTC)
    thread = Thread("main", "main", "", ThreadStatus.Waiting, "here", 1, now, frames=[Frame()])
    written = document(Instance("W", "i", "u", now, now, threads={"main": thread}))
    fields = "workflow id uid version status pc rev created_at updated_at threads state"
    assert set(written) == set(fields.split())
    assert written["threads"] == [
        {"id": "main", "status": "Waiting", "position": "here", "visit": 1, "since": "2024-01-01T00:00:00Z"}
    ]


@pytest.mark.parametrize("value", [0, "", False, [], {}, 0.0])
def test_a_value_that_is_false_is_not_an_empty_field(value: Any) -> None:
    now = datetime(2024, 1, 1, tzinfo=UTC)
    message = Message("m", "skip", now, value=to_json(value), lain=True)
    signal = Signal("return", value)
    thread = Thread("t", "t", "", ThreadStatus.Paused, "p", 1, now, result=to_json(value), frames=[Frame(after=signal)])
    seen = Seen("k", now, "h", 200, value)
    instance = Instance("W", "i", "u", now, now, input=value, output=value, threads={"t": thread}, inbox=[message], seen=[seen])
    assert decode(encode(instance), b"{}") == instance


@pytest.mark.parametrize(
    "broken",
    [
        {"version": FORMAT_VERSION + 1},
        {"threads": [{"id": "main"}]},
        {"status": "Dancing"},
        {"created_at": "yesterday"},
        {"inbox": [{}]},
        {"control": {"pause": 3}},
    ],
)
def test_what_is_no_document_of_this_format_is_unavailable_and_says_why(broken: dict[str, Any]) -> None:
    now = datetime(2024, 1, 1, tzinfo=UTC)
    values = {**from_json(encode(Instance("W", "i-7", "u", now, now))), **broken}
    with pytest.raises(Unavailable, match="W/i-7"):
        decode(values, b"{}")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"version": "1"}', {"version": None}])
def test_what_is_no_document_at_all_is_unavailable(text: Any) -> None:
    with pytest.raises(Unavailable, match="the document cannot be read"):
        decode(text, b"{}")
