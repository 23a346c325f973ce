"""The indexes serve every query that the driver makes, and nothing else is indexed."""

import json
from typing import Any

import pytest

from asyncflow import Return, S, Section, Workflow
from asyncflow.definition import Definition
from runner.stores.base import Write
from runner.stores.filters import parse_filter
from runner.stores.firestore_indexes import firestore_indexes, indexes_of
from runner.stores.firestore_queries import due_query, list_query, next_workflow_query, question_of
from runner.stores.firestore_rows import PreparedWrite, prepare
from runner.stores.firestore_url import FirestoreUrl
from tests.conformance.indexing import Indexes
from tests.conformance.records import entries, record
from tests.conformance.saves import FULL

URL = FirestoreUrl("demo-x", "orders")


class Order(Workflow, labels=("customer", "city")):
    customer: str = ""
    city: str = ""

    def definition(self) -> Section[None]:
        return S(Return(None))


class Trip(Workflow, labels="customer"):
    customer: str = ""

    def definition(self) -> Section[None]:
        return S(Return(None))


def test_each_declared_label_has_an_index_once() -> None:
    file: Any = firestore_indexes([Definition.of(Order), Definition.of(Trip)], "orders")
    fields = [[(field["fieldPath"], field["order"]) for field in index["fields"]] for index in file["indexes"]]
    assert [one for one in fields if any(path.startswith("labels") for path, _ in one)] == [
        [("workflow", "ASCENDING"), ("labels.city", "ASCENDING"), ("created_at", "DESCENDING")],
        [("workflow", "ASCENDING"), ("labels.customer", "ASCENDING"), ("created_at", "DESCENDING")],
    ]
    assert {index["collectionGroup"] for index in file["indexes"]} == {"orders"}
    assert json.loads(json.dumps(file)) == file


def test_only_what_is_asked_for_has_an_index_of_its_own() -> None:
    file: Any = indexes_of("orders")
    single = {one["fieldPath"]: one["indexes"] for one in file["fieldOverrides"] if one["indexes"]}
    assert set(single) == {"created_at", "expiry", "unfit", "at", "ended"}
    assert single["ended"] == [{"order": "ASCENDING", "queryScope": "COLLECTION_GROUP"}]


def test_every_field_that_is_written_is_decided_about() -> None:
    prepared = prepare(URL, Write(FULL, None, entries(1)))
    assert isinstance(prepared, PreparedWrite)
    written = {(write.update.name.split("/")[-2], field) for write in prepared.writes for field in write.update.fields}
    written |= {("orders", field) for field in ("saved_due_at", "reason", "tries")}
    assert written <= Indexes(indexes_of("orders")).overridden


def test_a_label_that_is_no_word_is_quoted() -> None:
    fields = json.dumps(indexes_of("orders", ["it's", "a`b\\c", "plain"]))
    for path in ("labels.`it's`", "labels.`a\\`b\\\\c`", "labels.plain"):
        assert json.dumps(path) in fields


# -- the check itself --------------------------------------------------------------------------------------------------


def asked(text: str, workflows: list[str] | None, status: str | None = None) -> Any:
    question = question_of(status, parse_filter(text, frozenset(("status", "created_at", "labels")), "Firestore"))
    return list_query(URL, workflows, question, (0, "o-1", "Order"), 9)


SERVED = [
    asked("", None),
    asked("created_at > 2026-01-31T00:00:00Z", None),
    asked("status = Failed", None),
    asked("", ["Order"]),
    asked("", ["Order", "Trip"]),
    asked("created_at < 2026-01-31T00:00:00Z AND created_at > 2025-01-31T00:00:00Z", ["Order", "Trip"], "Failed"),
    asked("labels.city = 1", ["Order", "Trip"]),
    asked("labels.city = null", ["Order"]),
    asked("labels.city = 1 AND labels.customer = x", ["Order"]),
    asked("labels.city = 1 AND labels.customer = x", ["Order"], "Failed"),
    due_query(URL, ["Order/1", "Order/2"], 5, 9),
    due_query(URL, ["Order/1"], None, 1),
    next_workflow_query(URL, "Order"),
]


@pytest.mark.parametrize("query", SERVED, ids=range(len(SERVED)))
def test_what_is_served_is_known(query: Any) -> None:
    assert Indexes(indexes_of("orders", ("city", "customer"))).fault(query) is None


def changed(query: Any, change: str) -> Any:
    copy = type(query)()
    copy.CopyFrom(query)
    match change:
        case "collection":
            copy.from_[0].collection_id = "others"
        case "group":
            copy.from_[0].all_descendants = True
        case "direction":
            copy.order_by[0].direction = 3 - copy.order_by[0].direction
        case _:
            del copy.order_by[:]
    return copy


@pytest.mark.parametrize(
    "query",
    [
        asked("labels.size = 1", ["Order"]),
        asked("labels.city = 1", None),
        asked("labels.city = 1 AND labels.customer = x", ["Order", "Trip"]),
        asked("labels.city = 1", ["Order", "Trip"], "Failed"),
        *(changed(asked("status = Failed", ["Order"]), change) for change in ("collection", "group", "direction", "order")),
        *(changed(asked("", None), change) for change in ("collection", "group", "direction")),
        *(changed(due_query(URL, ["Order/1"], 5, 9), change) for change in ("collection", "direction")),
        changed(next_workflow_query(URL, "Order"), "direction"),
    ],
)
def test_what_is_not_served_is_seen(query: Any) -> None:
    assert Indexes(indexes_of("orders", ("city", "customer"))).fault(query) is not None


def test_a_record_as_the_engine_makes_it_has_few_index_entries() -> None:
    """What each save changes: the composite indexes and the single ones whose fields it has."""
    prepared = prepare(URL, Write(record(due_at=FULL.due_at), None))
    assert isinstance(prepared, PreparedWrite)
    fields = set(prepared.writes[0].update.fields)
    file: Any = indexes_of("orders")
    composite = [index for index in file["indexes"] if {field["fieldPath"] for field in index["fields"]} <= fields]
    single = [one for one in file["fieldOverrides"] if one["indexes"] and one["fieldPath"] in fields]
    assert (len(composite), [one["fieldPath"] for one in single]) == (4, ["created_at"])
