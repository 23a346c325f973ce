"""A list as SQL. What a user gives is bound, never written into the text; the text has only words from here."""

from collections.abc import Sequence
from typing import Any, Final

from pydantic_core import to_json

from runner.stores.filters import Comparison, Filter
from runner.stores.pages import Place
from runner.stores.postgres_rows import term, to_text

_COLUMNS: Final = "i.created_at, i.id, i.workflow, i.status, i.updated_at, i.reason, i.labels::text, i.document"


class PageQuery:
    """The query for the first *limit* instances of *workflows* behind the place *after*, the newest first.

    Each workflow is asked for a page by its index, and the newest of these are the page. An equality with a label leads
    through the index of labels; everything else through that of the creation.
    """

    def __init__(self, workflows: Sequence[str], status: str | None, comparisons: Filter, after: Place | None, limit: int) -> None:
        self.values: list[Any] = []
        self._status = None if status is None else self._bind(to_text(status))
        self._limit = self._bind(limit, "bigint")
        self._after = after
        self._comparisons = comparisons
        self._led = next((one for one in comparisons if _is_indexed(one)), None)
        parts = [f"({self._page_of(workflow)})" for workflow in workflows]
        whole = " UNION ALL ".join(parts)
        self.sql = f"SELECT * FROM ({whole}) AS page ORDER BY created_at DESC, id DESC, workflow DESC LIMIT {self._limit}"

    def _bind(self, value: Any, kind: str = "text") -> str:
        self.values.append(value)
        return f"${len(self.values)}::{kind}"

    def _page_of(self, workflow: str) -> str:
        wanted, led = self._bind(to_text(workflow)), self._led
        lead, source, where = "i", "instances i", [f"i.workflow = {wanted}"]
        if led is not None:
            lead, source = "l", "labels l JOIN instances i ON i.seq = l.seq"
            name, value = self._bind(to_text(str(led.path[0]))), self._bind(term(led.value))
            where = [f"l.workflow = {wanted}", f"l.name = {name}", f"l.term = {value}"]
        if self._status is not None:
            where.append(f"i.status = {self._status}")
        if self._after is not None:
            created_at, id_, last = self._after
            # At the very same instant and id, the workflows come in descending order.
            sign = "<=" if workflow < last else "<"
            where.append(f"({lead}.created_at, {lead}.id) {sign} ({self._bind(created_at, 'bigint')}, {self._bind(to_text(id_))})")
        where += [self._condition(one) for one in self._comparisons if one is not led]
        order = f"{lead}.created_at DESC, {lead}.id DESC"
        return f"SELECT {_COLUMNS} FROM {source} WHERE {' AND '.join(where)} ORDER BY {order} LIMIT {self._limit}"

    # -- conditions ----------------------------------------------------------------------------------------------------

    def _condition(self, comparison: Comparison) -> str:
        match comparison.field:
            case "labels":
                name = to_text(str(comparison.path[0]))
                found = f"(i.labels::jsonb -> {self._bind(name)})"
                value = to_text(comparison.value) if isinstance(comparison.value, str) else comparison.value
                return self._json_condition(found, comparison.operator, value)
            case "state":
                return self._state_condition(comparison)
            case "status":
                return f"i.status {comparison.operator} {self._bind(to_text(str(comparison.value)))}"
            case field:
                return f"i.{field} {comparison.operator} {self._bind(comparison.value, 'bigint')}"

    def _state_condition(self, comparison: Comparison) -> str:
        value, operator = comparison.value, comparison.operator
        if operator == "=" and isinstance(value, str) and "\x00" in value:
            return "false"
        found = "i.state_json"
        for step in comparison.path:
            # A number leads into lists alone, a text into objects alone: -> gives null elsewhere.
            inner = f"{found} -> {self._bind(step, 'integer' if isinstance(step, int) else 'text')}"
            found = f"CASE WHEN jsonb_typeof({found}) = 'array' THEN {inner} END" if isinstance(step, int) else f"({inner})"
            found = f"({found})"
        if isinstance(value, str) and "\x00" in value:
            # No state here holds a NUL, so what comes before a text with one ends with what stands before the NUL.
            if operator == "!=":
                return f"jsonb_typeof({found}) <> 'null'"
            value, operator = value.partition("\x00")[0], "<=" if operator[0] == "<" else ">"
        condition = self._json_condition(found, operator, value)
        if operator == "=" and value is not None and not any(isinstance(step, int) for step in comparison.path):
            # The same once more, in the form that an index on all of the state understands, if somebody has made one.
            whole: Any = value
            for step in reversed(comparison.path):
                whole = {step: whole}
            condition = f"(i.state_json @> {self._bind(to_json(whole).decode(), 'jsonb')} AND {condition})"
        return condition

    def _json_condition(self, found: str, operator: str, value: Any) -> str:
        """Compare within JSON as `filters` says. CASE, because no cast may meet what it was not made for."""
        kind = f"jsonb_typeof({found})"
        if value is None:
            return f"{kind} {operator} 'null'"
        if operator in ("=", "!="):
            wanted = self._bind(to_json(value).decode(), "jsonb")
            return f"{found} = {wanted}" if operator == "=" else f"({kind} <> 'null' AND {found} <> {wanted})"
        if isinstance(value, str):
            wanted = self._bind(value)
            return f"CASE WHEN {kind} = 'string' THEN ({found} #>> '{{}}') COLLATE \"C\" {operator} {wanted} END"
        wanted = self._bind(repr(value), "numeric")
        return f"CASE WHEN {kind} = 'number' THEN {found}::numeric {operator} {wanted} END"


def _is_indexed(comparison: Comparison) -> bool:
    return comparison.field == "labels" and comparison.operator == "=" and comparison.value is not None
