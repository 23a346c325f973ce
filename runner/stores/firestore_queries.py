"""Questions in Firestore's own form. Each is served by an index of `firestore_indexes`: no other is ever asked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from google.cloud.firestore_v1.types import query

from asyncflow.errors import Malformed
from runner.stores.encoding import micros
from runner.stores.filters import Comparison, Filter, Value
from runner.stores.firestore_layout import ENTRIES, MARKER, SUMMARY, document_id, quoted, sortable
from runner.stores.firestore_url import FirestoreUrl
from runner.stores.firestore_values import Value as StoredValue
from runner.stores.firestore_values import instant, scalar, timestamp, words
from runner.stores.pages import Place

VALUES_MAX: Final = 30
"""How many values one `in` may have; a question about more workflows is asked in parts."""
LABEL_BYTES_MAX: Final = 1_500
"""An index keeps so much of a value: a longer one would be found by its beginning, and others with it."""

_FIRST: Final = micros(datetime.min.replace(tzinfo=UTC))
_LAST: Final = micros(datetime.max.replace(tzinfo=UTC))

_Query: Any = query.StructuredQuery.pb()
_Cursor: Any = query.Cursor.pb()
_ASCENDING: Final = query.StructuredQuery.Direction.ASCENDING
_DESCENDING: Final = query.StructuredQuery.Direction.DESCENDING
_EQUAL: Final = query.StructuredQuery.FieldFilter.Operator.EQUAL
_LESS: Final = query.StructuredQuery.FieldFilter.Operator.LESS_THAN
_AT_MOST: Final = query.StructuredQuery.FieldFilter.Operator.LESS_THAN_OR_EQUAL
_GREATER: Final = query.StructuredQuery.FieldFilter.Operator.GREATER_THAN
_AT_LEAST: Final = query.StructuredQuery.FieldFilter.Operator.GREATER_THAN_OR_EQUAL
_IN: Final = query.StructuredQuery.FieldFilter.Operator.IN
_AND: Final = query.StructuredQuery.CompositeFilter.Operator.AND
_IS_NULL: Final = query.StructuredQuery.UnaryFilter.Operator.IS_NULL
_NAME: Final = "__name__"


# -- due work ----------------------------------------------------------------------------------------------------------


def due_query(url: FirestoreUrl, shards: Sequence[str], until: int | None, limit: int) -> Any:
    """What is due in these parts of the index up to an instant (None: whenever), the earliest first."""
    where = [_compare("due_shard", _IN, words(shards))]
    if until is not None:
        where.append(_compare("due_at", _AT_MOST, instant(until)))
    return _query(url.collection, where, [("due_at", _ASCENDING)], ("due_at",), limit)


def expired_query(url: FirestoreUrl, workflow: str, until: int, limit: int) -> Any:
    """The ended instances of one workflow that expire up to an instant, the first expired first."""
    where = [
        _compare("expiry", _AT_LEAST, scalar(sortable(workflow))),
        _compare("expiry", _AT_MOST, scalar(sortable(workflow, until))),
    ]
    return _query(url.collection, where, [("expiry", _ASCENDING)], ("expires_at",), limit)


def unfit_query(url: FirestoreUrl, workflows: Sequence[str]) -> Any:
    """What other code may get on with."""
    return _query(url.collection, [_compare("unfit", _IN, words(workflows))], [], (_NAME,))


# -- lists -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Question:
    """What a list is asked for: `empty` where nothing can fit; instants in microseconds, both within."""

    status: str | None = None
    labels: dict[str, Value] = field(default_factory=dict)
    first: int = _FIRST
    last: int = _LAST
    empty: bool = False

    @property
    def equalities(self) -> int:
        """How many fields besides the workflow are asked for by `=`."""
        return len(self.labels) + (self.status is not None)


UNSERVED: Final = frozenset(
    [("status", "!="), ("created_at", "!="), *(("labels", operator) for operator in ("!=", "<", "<=", ">", ">="))]
)
"""What a filter may not ask, besides fields that have no index at all."""


def question_of(status: str | None, comparisons: Filter) -> Question:
    """Read a filter as a question that the indexes can answer.

    Raises:
        Malformed: It asks for what no index serves; the field and the operator are named.
    """
    question = Question(status)
    for one in comparisons:
        if (one.field, one.operator) in UNSERVED:
            raise Malformed(
                f"the Firestore store cannot filter by {_named(one)!r} with {one.operator}: its indexes serve status and labels"
                " with =, and created_at with = < <= > >="
            )
        match one.field:
            case "status":
                question.empty |= question.status not in (None, one.value)
                question.status = str(one.value)
            case "labels":
                _ask_label(question, str(one.path[0]), one.value)
            case _:
                _narrow(question, one)
    question.empty |= question.first > question.last
    return question


def _narrow(question: Question, one: Comparison) -> None:
    at = one.value
    assert isinstance(at, int)  # the parser has made it microseconds
    if one.operator in ("=", ">=", ">"):
        question.first = max(question.first, at + (one.operator == ">"))
    if one.operator in ("=", "<=", "<"):
        question.last = min(question.last, at - (one.operator == "<"))


def _ask_label(question: Question, name: str, value: Value) -> None:
    if isinstance(value, str) and len(value.encode(errors="surrogatepass")) > LABEL_BYTES_MAX:
        raise Malformed(f"the Firestore store cannot filter by a label of more than {LABEL_BYTES_MAX} bytes: labels.{name}")
    known = question.labels.setdefault(name, value)
    # True is 1 in Python, and in no store.
    question.empty |= (type(known) is bool, known) != (type(value) is bool, value)


def _named(one: Comparison) -> str:
    return ".".join([one.field, *map(str, one.path)])


def list_query(url: FirestoreUrl, workflows: Sequence[str] | None, asked: Question, after: Place | None, limit: int) -> Any:
    """One page of instances, the last created first; of one workflow where `asked` needs two indexes merged."""
    where = []
    if workflows is not None:
        one = len(workflows) == 1
        where.append(_compare("workflow", _EQUAL if one else _IN, scalar(workflows[0]) if one else words(workflows)))
    if asked.status is not None:
        where.append(_compare("status", _EQUAL, scalar(asked.status)))
    for name, value in asked.labels.items():
        where.append(_is(f"labels.{quoted(name)}", value))
    if asked.first > _FIRST:
        where.append(_compare("created_at", _AT_LEAST, instant(asked.first)))
    if asked.last < _LAST:
        where.append(_compare("created_at", _AT_MOST, instant(asked.last)))
    order = [("created_at", _DESCENDING), (_NAME, _DESCENDING)]
    found = _query(url.collection, where, order, SUMMARY, limit)
    if after is not None:
        at, id_, workflow = after
        place = f"{url.root}/{url.collection}/{document_id(workflow, id_)}"
        cursor = _Cursor(values=[{"timestamp_value": timestamp(at)}, {"reference_value": place}], before=False)
        found.start_at.CopyFrom(cursor)
    return found


def next_workflow_query(url: FirestoreUrl, after: str) -> Any:
    """The first instance of the first workflow whose name comes behind *after*: so a store's workflows are found one by one."""
    where = [_compare("workflow", _GREATER, scalar(after))]
    return _query(url.collection, where, [("workflow", _ASCENDING), ("created_at", _DESCENDING)], ("workflow",), 1)


# -- history -----------------------------------------------------------------------------------------------------------


def entries_query(url: FirestoreUrl, below: str, after: str, end: str, limit: int) -> Any:
    """The history of the instance at *below* between two names, without them, the oldest first."""
    where = [
        _compare(_NAME, _GREATER, StoredValue(reference_value=f"{below}/{url.history}/{after}")),
        _compare(_NAME, _LESS, StoredValue(reference_value=f"{below}/{url.history}/{end}")),
    ]
    return _query(url.history, where, [(_NAME, _ASCENDING)], ENTRIES, limit)


def names_query(url: FirestoreUrl, limit: int) -> Any:
    """The names of whatever lies in one instance's history."""
    return _query(url.history, [], [], (_NAME,), limit)


def old_query(url: FirestoreUrl, before: int | None, limit: int) -> Any:
    """The writes of one instance before an instant (None: all), the oldest first."""
    where = [] if before is None else [_compare("at", _LESS, instant(before))]
    return _query(url.history, where, [("at", _ASCENDING)], ("at",), limit)


def markers_query(url: FirestoreUrl, workflow: str, before: int, after: Any, limit: int) -> Any:
    """The markers of ended instances of one workflow with entries from before an instant, behind the document *after*."""
    where = [
        _compare(MARKER, _AT_LEAST, scalar(sortable(workflow))),
        _compare(MARKER, _LESS, scalar(sortable(workflow, before))),
    ]
    found = _query(url.history, where, [(MARKER, _ASCENDING), (_NAME, _ASCENDING)], (MARKER,), limit, group=True)
    if after is not None:
        values = [after.fields[MARKER], StoredValue(reference_value=after.name)]
        found.start_at.CopyFrom(_Cursor(values=values, before=False))
    return found


# -- parts -------------------------------------------------------------------------------------------------------------


def in_parts(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """Give *values* in parts of as many as one `in` takes."""
    for start in range(0, len(values), VALUES_MAX):
        yield values[start : start + VALUES_MAX]


def _query(
    collection: str,
    where: Sequence[Any],
    order: Sequence[tuple[str, int]],
    fields: Sequence[str],
    limit: int | None = None,
    *,
    group: bool = False,
) -> Any:
    made = _Query(
        select={"fields": [{"field_path": name} for name in fields]},
        order_by=[{"field": {"field_path": name}, "direction": direction} for name, direction in order],
    )
    made.from_.add(collection_id=collection, all_descendants=group)
    if len(where) == 1:
        made.where.CopyFrom(where[0])
    elif where:
        made.where.composite_filter.op = _AND
        made.where.composite_filter.filters.extend(where)
    if limit is not None:
        made.limit.value = limit
    return made


def _compare(name: str, operator: int, value: Any) -> Any:
    return _Query.Filter(field_filter={"field": {"field_path": name}, "op": operator, "value": value})


def _is(name: str, value: Value) -> Any:
    if value is None:
        return _Query.Filter(unary_filter={"op": _IS_NULL, "field": {"field_path": name}})
    return _compare(name, _EQUAL, scalar(value))
