"""`show` marks every thread, wherever it stands."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from asyncflow.refusals import in_words
from asyncflow.schema import definition_json
from runner.commands.access import JsonObject
from runner.commands.drawing import instance_view
from runner.commands.instances import where
from tests.cli import shop

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def thread(id_: str, status: str, position: str, **more: Any) -> JsonObject:
    return {"id": id_, "status": status, "position": position, "attempt": 0, "retry_at": None, "error": None, **more}


def instance(*threads: JsonObject, **more: Any) -> JsonObject:
    return {
        "workflow": "W", "id": "w-1", "status": "Running", "state": {}, "output": None, "error": None,
        "threads": list(threads), "awaits": [], "labels": {}, "control": None, "pc": 1, "created_at": NOW.isoformat(),
        "updated_at": NOW.isoformat(), **more,
    }  # fmt: skip


def drawn(shown: JsonObject, tree: JsonObject | None, timers: list[JsonObject] | None = None) -> list[str]:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    with console.capture() as text:
        console.print(instance_view(shown, tree, timers or [], NOW))
    return [line.strip("│├└─ ") for line in text.get().splitlines()]


CALLS: Any = definition_json(shop.Calls)


def test_an_undo_is_marked_at_its_step() -> None:
    shown = instance(thread("main", "Executing", "calls/ring/undo", attempt=2, retry_at=(NOW + timedelta(minutes=5)).isoformat()))
    lines = drawn(shown, CALLS)
    assert "Step ring  ◀ main: undoing, attempt 2, again in 5m" in lines
    assert ["in", "5m", "calls/ring/undo", "(next", "attempt)", "main"] in [line.split()[:6] for line in lines]


def test_many_threads_at_one_statement_are_counted() -> None:
    lines = drawn(instance(*(thread(f"calls/c{n}", "Executing", "calls/ring") for n in range(1_000))), CALLS)
    line = next(line for line in lines if line.startswith("Step ring"))
    assert line.count("◀") == 5
    assert line.endswith("and 995 more threads")


def test_a_thread_that_stands_nowhere_in_this_code_is_shown_below() -> None:
    lines = drawn(instance(thread("main", "Waiting", "gone/away"), thread("calls/c1", "Resuming", "")), CALLS)
    assert "◀ main: Waiting at gone/away" in lines
    assert "◀ calls/c1: Resuming at its end" in lines


def test_without_the_code_there_is_no_tree() -> None:
    lines = drawn(instance(thread("main", "Waiting", "calls"), labels={"customer": "ann", "none": None}), None)
    assert "customer=ann" in lines
    assert not any("◀" in line for line in lines)


def test_all_kinds_of_parts_are_drawn() -> None:
    tree = {
        "kind": "workflow", "name": "W", "path": "", "body": [
            {"kind": "try", "name": "", "path": "", "body": [{"kind": "step", "name": "pay", "path": "pay"}],
             "cases": [{"kind": "except", "name": "except Broke", "path": "except Broke", "body": [
                 {"kind": "raise", "name": "raise", "path": "except Broke/raise"}]}],
             "finally": [{"kind": "step", "name": "tidy", "path": "finally/tidy"}]},
            {"kind": "if", "name": "vip", "path": "vip", "cases": [
                {"kind": "case", "name": "vip", "path": "vip", "body": []},
                {"kind": "case", "name": "else", "path": "vip/else", "body": [
                    {"kind": "waitfor", "name": "a while", "path": "vip/else/a while", "cases": [
                        {"kind": "after", "name": "a while", "path": "vip/else/a while", "body": []}]}]}]},
            {"kind": "after", "name": "after 2", "path": "after 2"},
        ],
    }  # fmt: skip
    timers = [{"thread": "main", "path": "vip/else/a while", "at": (NOW + timedelta(hours=1)).isoformat()}]
    lines = drawn(instance(thread("main", "Waiting", "vip/else/a while")), tree, timers)
    assert lines[2:13] == [
        "W", "Try", "Step pay", "Except Broke", "Raise", "Finally", "Step tidy", "If vip", "Case vip", "Case else",
        "WaitFor a while  in 1h  ◀ main: Waiting",
    ]  # fmt: skip
    assert lines[13] == "After 2"


def test_the_error_of_the_instance_is_drawn_with_its_traceback() -> None:
    error = {
        "type": "Broke",
        "message": "no money",
        "path": "pay",
        "attempt": 3,
        "at": NOW.isoformat(),
        "traceback": "a\nb",
    }
    lines = drawn(instance(status="Failed", error=error), CALLS)
    assert "instance at pay, attempt 3, 0s ago" in lines
    assert lines[lines.index("Broke: no money") :][:3] == ["Broke: no money", "a", "b"]


def test_an_in_words() -> None:
    assert in_words(None) == ""
    assert in_words({"type": "string"}) == "string"
    assert in_words({"properties": {"a": {}, "b": {}}}) == "{a, b}"
    assert in_words({"anyOf": [{"$ref": "#/$defs/Bill"}, {"type": "null"}]}) == "Bill or null"
    assert in_words({"enum": ["yes", "no"]}) == "yes or no"
    assert in_words({"const": 3}) == "3"
    assert in_words({"type": ["integer", "null"], "default": 5}) == "integer or null = 5"
    assert in_words({}) == "anything"


def test_where_an_instance_stands_is_one_line() -> None:
    error = {"type": "E", "message": "a\nb " * 40}
    threads = [
        thread("main", "Waiting", "calls"),
        *(thread(f"calls/{n}", "Paused", "calls/ring", error=error) for n in range(5)),
    ]
    said = where(instance(*threads), 60)
    assert len(said) == 60
    assert "\n" not in said
    assert said.startswith("calls, calls/0: calls/ring, calls/1: calls/ring and 3 more;")
    assert where(instance()) == ""
