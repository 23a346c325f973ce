"""A list as SQL. What a user gives is bound, never written into the text; the text has only words from here."""

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from runner.stores.filters import Comparison, Filter, Value
from runner.stores.pages import Place
from runner.stores.sqlite_schema import ColumnValue

_COLUMNS: Final = "i.created_at, i.id, i.workflow, i.status, i.updated_at, i.reason, i.labels, i.document"

Bindings: TypeAlias = list[ColumnValue]


class Query(NamedTuple):
    """A text with its bindings."""

    sql: str
    bindings: Bindings


def page_query(workflow: str, status: str | None, comparisons: Filter, after: Place | None, limit: int) -> Query:
    """Make the query for the first *limit* instances of one workflow behind the place *after*, the newest first.

    An equality with a label leads through the index of labels; everything else through that of the creation.
    """
    led = next((comparison for comparison in comparisons if _is_indexed(comparison)), None)
    lead, source = "i", "instances i"
    where, bindings = ["i.workflow = ?"], Bindings((workflow,))
    if led is not None:
        lead, source = "l", "labels l CROSS JOIN instances i ON i.seq = l.seq"
        where, bindings = ["l.workflow = ?", "l.name = ?", "l.value = ?"], [workflow, *led.path, indexed(led.value)]
    if status is not None:
        where.append("i.status = ?")
        bindings.append(status)
    if after is not None:
        # At the very same instant and id, the workflows come in descending order.
        where.append(f"({lead}.created_at, {lead}.id) {'<=' if workflow < after[2] else '<'} (?, ?)")
        bindings += after[:2]
    for comparison in comparisons:
        if comparison is not led:
            condition = _condition(comparison)
            where.append(condition.sql)
            bindings += condition.bindings
    return Query(
        f"SELECT {_COLUMNS} FROM {source} WHERE {' AND '.join(where)} ORDER BY {lead}.created_at DESC, {lead}.id DESC LIMIT ?",
        [*bindings, limit],
    )


def indexed(value: Value) -> ColumnValue:
    """Return a label's value as the index of labels keeps it: to SQLite itself, true is 1."""
    return bytes([value]) if isinstance(value, bool) else value


def _is_indexed(comparison: Comparison) -> bool:
    return comparison.field == "labels" and comparison.operator == "=" and comparison.value is not None


def _condition(comparison: Comparison) -> Query:
    match comparison.field:
        case "labels" | "state":
            return _json_condition(f"CAST(i.{comparison.field} AS TEXT)", comparison)
        case field:
            return Query(f"i.{field} {comparison.operator} ?", [comparison.value])


def _json_condition(text: str, comparison: Comparison) -> Query:
    """Compare within JSON as `filters` says. The type comes from JSON, as SQLite's own has no true, false and null."""
    path = json_path(comparison.path)
    # CASE, because a text that is no JSON would fail the whole list.
    kind = f"CASE WHEN json_valid({text}) THEN json_type({text}, ?) END"
    content = f"CASE WHEN json_valid({text}) THEN json_extract({text}, ?) END"
    value, operator = comparison.value, comparison.operator
    if value is None:
        return Query(f"({kind}) {operator} 'null'", [path])
    if isinstance(value, bool):
        equal = Query(f"({kind}) = ?", [path, "true" if value else "false"])
    else:
        alike = "= 'text'" if isinstance(value, str) else "IN ('integer', 'real')"
        sign = "=" if operator == "!=" else operator
        equal = Query(f"(({kind}) {alike} AND ({content}) {sign} ?)", [path, path, value])
    if operator != "!=":
        return equal
    return Query(f"(({kind}) <> 'null' AND NOT {equal.sql})", [path, *equal.bindings])


def json_path(path: Sequence[str | int]) -> str:
    """Return *path* as SQLite writes it; the parser of filters lets no quote or backslash into a name."""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f'."{step}"' for step in path)
