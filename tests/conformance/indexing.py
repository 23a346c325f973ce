"""What indexes serve, by the rules of Firestore's documentation: the emulator answers every query, with or without one."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

Index: TypeAlias = tuple[tuple[str, int], ...]

ASCENDING: Final = 1
DESCENDING: Final = 2
_EQUALITIES: Final = {"=": 5, "in": 8}
_RANGES: Final = (1, 2, 3, 4)
_NAME: Final = "__name__"


class Indexes:
    """The indexes of one `firestore.indexes.json`."""

    def __init__(self, file: Mapping[str, Any]) -> None:
        self._composite: dict[tuple[str, str], list[Index]] = {}
        for index in file["indexes"]:
            fields = tuple((field["fieldPath"], _direction(field["order"])) for field in index["fields"])
            self._composite.setdefault((index["collectionGroup"], index["queryScope"]), []).append(fields)
        self.overridden = {(one["collectionGroup"], one["fieldPath"]) for one in file["fieldOverrides"]}
        self._single = {
            (one["collectionGroup"], index["queryScope"], one["fieldPath"], _direction(index["order"]))
            for one in file["fieldOverrides"]
            for index in one["indexes"]
        }

    def fault(self, query: Any) -> str | None:
        """Say why *query* would be refused; None: it is served."""
        (source,) = query.from_
        scope = "COLLECTION_GROUP" if source.all_descendants else "COLLECTION"
        equal, several, ranges = _filters(query)
        order = _order(query, ranges)
        if isinstance(order, str):
            return order
        suffix = tuple(part for part in order if part[0] not in equal)
        asked = f"{sorted(equal)} by {suffix}"
        if ranges - {_NAME} and (not suffix or {suffix[0][0]} != ranges):
            return f"a range over {ranges} must be ordered by it first: {asked}"
        if not suffix:
            missing = [field for field in equal if not self._has_single(source.collection_id, scope, field)]
            return f"no index of a single field for {missing}" if missing else None
        if not equal and len(suffix) == 1:
            single = (source.collection_id, scope, *suffix[0]) in self._single
            return None if single else f"no index of a single field: {asked}"
        return self._composite_fault(self._composite.get((source.collection_id, scope), []), equal, several, suffix, asked)

    @staticmethod
    def _composite_fault(indexes: Sequence[Index], equal: set[str], several: bool, suffix: Index, asked: str) -> str | None:
        served: set[str] = set()
        for index in indexes:
            lead, rest = index[: len(index) - len(suffix)], index[len(index) - len(suffix) :]
            fields = {field for field, _ in lead}
            if rest == suffix and fields <= equal:
                if fields == equal:
                    return None
                served |= fields
        if served == equal and equal and not several:
            return None  # by several, which are merged; not relied on where a field is asked for several values
        return f"no composite index: {asked}"

    def _has_single(self, collection: str, scope: str, field: str) -> bool:
        return any((collection, scope, field, direction) in self._single for direction in (ASCENDING, DESCENDING))


def _direction(order: str) -> int:
    return {"ASCENDING": ASCENDING, "DESCENDING": DESCENDING}[order]


def _filters(query: Any) -> tuple[set[str], bool, set[str]]:
    """Return the fields asked for by equality, whether one of them is asked for several values, the fields asked for a range."""
    if not query.HasField("where"):
        return set(), False, set()
    parts = query.where.composite_filter.filters if query.where.HasField("composite_filter") else [query.where]
    equal, several, ranges = set(), False, set()
    for part in parts:
        if part.HasField("unary_filter"):
            equal.add(part.unary_filter.field.field_path)
            continue
        field, operator = part.field_filter.field.field_path, part.field_filter.op
        if operator in _EQUALITIES.values():
            equal.add(field)
            several |= operator == _EQUALITIES["in"]
        else:
            assert operator in _RANGES, operator
            ranges.add(field)
    return equal, several, ranges


def _order(query: Any, ranges: set[str]) -> Index | str:
    """Return what the result is ordered by, without the name of the document, which is always last; or what is wrong with it."""
    order = [(part.field.field_path, int(part.direction)) for part in query.order_by]
    if not order:
        order = [(field, ASCENDING) for field in ranges]
    if order and order[-1][0] == _NAME:
        name = order.pop()
        if name[1] != (order[-1][1] if order else ASCENDING):
            return f"the name must be ordered as the field before it: {order}, {name}"
    return tuple(order)
