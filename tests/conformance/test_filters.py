"""A filter means the same to the evaluator in Python and to SQLite, and says what it does not understand."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.errors import Malformed
from runner.stores.filters import Comparison, matches, parse_filter
from runner.stores.sqlite_schema import MIGRATIONS
from runner.stores.sqlite_search import page_query
from tests.conformance.records import NOW, ORDER

ALL = frozenset(("status", "created_at", "updated_at", "labels", "state"))
MICROS_OF_NOW = 1_769_850_000_123_456


def parse(text: str) -> tuple[Comparison, ...]:
    return parse_filter(text, ALL, "test")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("status=Paused", Comparison("status", (), "=", "Paused")),
        ("status != 'a \"b\" \\'c\\' \\\\'", Comparison("status", (), "!=", "a \"b\" 'c' \\")),
        ("labels.order-no=5", Comparison("labels", ("order-no",), "=", 5)),
        ('labels."a.b" = x', Comparison("labels", ("a.b",), "=", "x")),
        ("labels.0 = x", Comparison("labels", ("0",), "=", "x")),
        ("state.a.0.b<-1.5e3", Comparison("state", ("a", 0, "b"), "<", -1500.0)),
        ('state.a."0" >= 0', Comparison("state", ("a", "0"), ">=", 0)),
        ("state.a = true", Comparison("state", ("a",), "=", True)),
        ('state.a = "true"', Comparison("state", ("a",), "=", "true")),
        ("state.a != null", Comparison("state", ("a",), "!=", None)),
        ("state.a = 01", Comparison("state", ("a",), "=", "01")),
        ("state.at > 2026-01-31T09:00:00Z", Comparison("state", ("at",), ">", "2026-01-31T09:00:00Z")),
        ('created_at > "2026-01-31T09:00:00.123456Z"', Comparison("created_at", (), ">", MICROS_OF_NOW)),
        ("updated_at <= 2026-01-31t10:00:00.123456+01:00", Comparison("updated_at", (), "<=", MICROS_OF_NOW)),
        ("updated_at = 2026-01-31T09:00:00.123456789Z", Comparison("updated_at", (), "=", MICROS_OF_NOW)),
    ],
)
def test_a_comparison_is_read(text: str, expected: Comparison) -> None:
    assert parse(text) == (expected,)
    assert type(parse(text)[0].value) is type(expected.value)


@pytest.mark.parametrize(
    "text, says",
    [
        ("status = a OR status = b", "expected AND, at character 12: OR status = b"),
        ("NOT status = a", "NOT is not supported"),
        ("(status = a)", "expected a field, at character 1"),
        ("status = a AND ", "expected a field, at character 16: the end"),
        ("status = a AND (", r"expected a field, at character 16: \("),
        ("status = ", "expected a value, at character 10: the end"),
        ("status:a", "expected one of = != < <= > >=, at character 7"),
        ("labels.a < true", "have no order"),
        ("status < a", "by = or !="),
        ("customer = ann", r"labels.NAME or state.PATH, at character 1"),
        ("created_at > 2026-01-31", "a time with its zone.*at character 14"),
        ("state.a = 9007199254740992", "2\\^53"),
        ("labels.a=1 AND " * 20 + "labels.a=1", "at most 20 comparisons, this one 21"),
        ("labels.a=" + "x" * 2_000, "at most 2000 characters, this one 2009"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(text: str, says: str) -> None:
    with pytest.raises(Malformed, match=says):
        parse(text)


def test_a_field_that_a_store_cannot_filter_is_named() -> None:
    with pytest.raises(Malformed, match=r"Firestore store cannot filter by 'state\.cart\.0'; it can by: labels, status"):
        parse_filter("labels.a = 1 AND state.cart.0 = 1", frozenset(("labels", "status")), "Firestore")


@given(st.text())
def test_any_text_is_read_or_malformed(text: str) -> None:
    for whole in (text, f"state.{text} = 1", f'labels.a = "{text}"', f"labels.a {text} 1", f"labels.a = {text}"):
        try:
            found = parse(whole)
        except Malformed:
            continue
        assert found or not whole.strip()


# -- Python and SQLite -------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(["a", "b c", "ä", "0", "x.y", "$", "[0]", "", "'"])
# Quarters: numbers that every parser reads exactly.
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.integers(-20, 20).map(lambda number: number / 4)
TEXTS = st.sampled_from(["", "a", "b", "ä", "🍕", "1", "true", "null", "%", "'"])
SCALARS = st.none() | st.booleans() | NUMBERS | st.integers(-2, 2) | TEXTS
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
STEPS: st.SearchStrategy[str | int] = KEYS | st.integers(0, 2)


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    value = draw(SCALARS)
    orders = [] if value is None or isinstance(value, bool) else ["<", "<=", ">", ">="]
    operator = draw(st.sampled_from(["=", "!=", *orders]))
    if draw(st.booleans()):
        return Comparison("labels", (draw(KEYS),), operator, value)
    return Comparison("state", tuple(draw(st.lists(STEPS, min_size=1, max_size=3))), operator, value)


@pytest.fixture(scope="module")
def database() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    for migration in MIGRATIONS:
        connection.execute(migration)
    yield connection
    connection.close()


@given(
    state=VALUES,
    labels=st.dictionaries(KEYS, SCALARS, max_size=3),
    asked=st.lists(comparisons(), min_size=1, max_size=3),
    valid=st.integers(0, 9),
)
def test_sqlite_and_python_agree(
    database: apsw.Connection, state: Any, labels: dict[str, Any], asked: list[Comparison], valid: int
) -> None:
    text = json.dumps(state, ensure_ascii=False).encode() + (b"" if valid else b"}")
    columns = {"status": "Running", "labels": labels, "state": text}
    # Not through the index of labels, which has its own tests: an equality with a label is asked for twice.
    asked = [comparison for comparison in asked for _ in range(2)]
    database.execute("DELETE FROM instances")
    database.execute(
        "INSERT INTO instances (workflow, id, revision, status, created_at, updated_at, unplaced, unfit, tries, uid,"
        " rev, holders, labels, document, state) VALUES (?, 'o-1', 1, 'Running', 0, 0, 0, 0, 0, '', 1, '', ?, x'', ?)",
        (ORDER, json.dumps(labels, ensure_ascii=False).encode(), text),
    )
    database.execute("DELETE FROM labels")
    for name, value in labels.items():
        if value is not None:
            indexed = bytes([value]) if isinstance(value, bool) else value
            database.execute("INSERT INTO labels VALUES (?, ?, ?, 0, 'o-1', (SELECT seq FROM instances))", (ORDER, name, indexed))
    query = page_query(ORDER, None, tuple(asked), None, 9)
    found = bool(database.execute(query.sql, query.bindings).fetchall())
    assert found == matches(tuple(asked), created_at=NOW, updated_at=NOW, **columns)  # type: ignore[arg-type]


def test_times_and_statuses_compare_as_in_sqlite() -> None:
    later = NOW + timedelta(hours=1)
    for text, expected in (
        ("created_at < 2026-01-31T09:00:01Z AND updated_at > 2026-01-31T09:59:59Z", True),
        ("created_at >= 2026-01-31T09:00:01Z", False),
        ("status = Running AND status != Failed", True),
        ("status != Running", False),
    ):
        assert matches(parse(text), status="Running", created_at=NOW, updated_at=later, labels={}, state=b"") == expected
    assert datetime(2026, 1, 31, 9, 0, 0, 123_456, tzinfo=UTC) == NOW
