"""`asyncflow show`: the tree of a workflow with the threads of one instance where they stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from asyncflow.refusals import in_words
from runner.commands.access import JsonObject
from runner.commands.output import ago, json_block, status_text, table, until, visible

KINDS: Final = {
    "after": "After", "at": "At", "atomic": "Atomic", "break": "Break", "call": "Call", "cancel": "Cancel",
    "case": "Case", "commit": "Commit", "continue": "Continue", "default": "Default", "except": "Except", "for": "For",
    "foreach": "ForEach", "go": "Go", "if": "If", "join": "Join", "on": "On", "parallel": "Parallel", "raise": "Raise",
    "reply": "Reply", "return": "Return", "section": "Section", "select": "Select", "send": "Send", "step": "Step",
    "switch": "Switch", "try": "Try", "waitevent": "WaitEvent", "waitfor": "WaitFor",
    "waitoperations": "WaitOperations", "waituntil": "WaitUntil", "when": "When",
}  # fmt: skip
"""How each kind is written in a definition."""

SINGLE_WAITS: Final = frozenset({"waitevent", "waitfor", "waituntil"})
"""Their one case is themselves; only its body is drawn."""

THREADS_SHOWN: Final = 5
"""On a terminal, of those that stand at one statement: the rest is counted. A fan-out has a thousand."""

UNDO: Final = "/undo"


def instance_view(
    instance: JsonObject, tree: JsonObject | None, timers: Sequence[JsonObject], now: datetime, *, whole: bool = False
) -> RenderableType:
    """Draw an instance.

    Args:
        instance: As HTTP shows it (docs/http.md).
        tree: Its workflow's definition; None where the code is not at hand: then threads are listed.
        timers: `{thread, path, at}` of each.
        now: What times are counted from.
        whole: Leave nothing out, however many threads stand at one statement.
    """
    parts: list[RenderableType] = [_head(instance, now)]
    marks = _Marks(instance, timers, now, most=len(instance["threads"]) if whole else THREADS_SHOWN)
    parts += [_threads(instance)] if tree is None else [_tree(tree, marks)]
    parts += [part for part in (_awaits(instance), _timers(instance, timers, now)) if part is not None]
    parts += _errors(instance, now)
    if instance.get("output") is not None:
        parts.append(_titled("output", Text(json_block(instance["output"]))))
    parts.append(_titled("state", Text(json_block(instance["state"]))))
    return Group(*parts)


def _head(instance: JsonObject, now: datetime) -> Text:
    line = Text.assemble((f"{instance['workflow']}/{instance['id']}", "bold"), "  ", status_text(instance["status"]))
    line.append(f"  pc {instance['pc']}, started {ago(instance['created_at'], now)}, changed {ago(instance['updated_at'], now)}")
    for word, since in (instance.get("control") or {}).items():
        line.append(f"\n{word} asked for {ago(since.get('since'), now)}", "yellow")
    labels = {name: value for name, value in (instance.get("labels") or {}).items() if value is not None}
    if labels:
        line.append(visible("\n" + ", ".join(f"{name}={value}" for name, value in labels.items())), "dim")
    return line


def _titled(title: str, body: RenderableType) -> Group:
    return Group(Text(f"\n{title}", "bold"), body)


# -- the tree ----------------------------------------------------------------------------------------------------------


class _Marks:
    """Which threads stand where; each is taken by the first statement of its path."""

    def __init__(self, instance: JsonObject, timers: Sequence[JsonObject], now: datetime, *, most: int) -> None:
        self.most = most
        """How many are marked at one statement."""
        self._now = now
        self._deadlines: dict[str, list[str]] = {}
        for timer in timers:
            self._deadlines.setdefault(str(timer["path"]), []).append(str(timer["at"]))
        self._waiting: dict[str, list[JsonObject]] = {}
        for thread in instance["threads"]:
            self._waiting.setdefault(str(thread["position"]).removesuffix(UNDO), []).append(thread)

    def take(self, path: str) -> list[JsonObject]:
        return self._waiting.pop(path, [])

    def left(self) -> Iterator[JsonObject]:
        for threads in self._waiting.values():
            yield from threads

    def countdown(self, path: str) -> str:
        times = sorted(self._deadlines.get(path, []))
        return until(times[0], self._now) if times else ""

    def mark(self, thread: JsonObject) -> Text:
        status = str(thread["status"])
        style = {"Paused": "bold yellow", "Executing": "bold green"}.get(status, "bold cyan")
        said = f"◀ {thread['id']}: {'undoing' if str(thread['position']).endswith(UNDO) else status}"
        if thread.get("attempt"):
            said += f", attempt {thread['attempt']}"
        if thread.get("retry_at"):
            said += f", again {until(thread['retry_at'], self._now)}"
        if thread.get("error"):
            said += f", {thread['error']['type']}"
        return Text(visible(said), style)


def _threads(instance: JsonObject) -> RenderableType:
    rows = [(one["id"], one["status"], one["position"]) for one in instance["threads"]]
    return _titled("threads", table(["thread", "status", "at"], rows)) if rows else Text()


def _tree(definition: JsonObject, marks: _Marks) -> RenderableType:
    root = Tree(Text(visible(definition["name"])), guide_style="dim")
    _add_all(root, definition.get("body"), marks)
    elsewhere = [marks.mark(one).append(visible(f" at {one['position'] or 'its end'}")) for one in marks.left()]
    return Group(Text(), root, *elsewhere)


def _add_all(branch: Tree, nodes: Any, marks: _Marks) -> None:
    for node in nodes or ():
        _add(branch, node, marks)


def _add(branch: Tree, node: JsonObject, marks: _Marks) -> None:
    kind = str(node["kind"])
    threads = marks.take(str(node["path"])) if node["path"] else []
    label = Text().append(KINDS.get(kind, kind), "dim")
    name = str(node.get("name") or "")
    if name and not name.startswith(kind):
        label.append(visible(f" {name}"))
    elif name not in (kind, ""):  # a second one, `after 2`, or `except OutOfStock`
        label.append(visible(name.removeprefix(kind)))
    if kind in ("after", "at", "waitfor") and (countdown := marks.countdown(str(node["path"]))):
        label.append(f"  {countdown}", "cyan")
    for thread in threads[: marks.most]:
        label.append("  ").append_text(marks.mark(thread))
    if len(threads) > marks.most:
        label.append(f"  and {len(threads) - marks.most} more threads", "cyan")
    below = branch.add(label)
    if kind in SINGLE_WAITS:
        for case in node.get("cases", ()):
            _add_all(below, case.get("body"), marks)
        return
    _add_all(below, node.get("body"), marks)
    _add_all(below, node.get("cases"), marks)
    if node.get("finally"):
        _add_all(below.add(Text("Finally", "dim")), node["finally"], marks)


# -- beside the tree ---------------------------------------------------------------------------------------------------


def _awaits(instance: JsonObject) -> RenderableType | None:
    if not instance.get("awaits"):
        return None
    rows = [
        (one["event"], one["thread"], ", ".join(one["role"] or ()) or "anybody", in_words(one.get("schema")))
        for one in instance["awaits"]
    ]
    return _titled("awaits", table(["event", "thread", "from", "input"], rows))


def _timers(instance: JsonObject, timers: Sequence[JsonObject], now: datetime) -> RenderableType | None:
    rows = [(until(one["at"], now), one["path"], one["thread"], one["at"]) for one in timers]
    rows += [
        (until(one["retry_at"], now), f"{one['position']} (next attempt)", one["id"], one["retry_at"])
        for one in instance["threads"]
        if one.get("retry_at")
    ]
    return _titled("timers", table(["due", "what", "thread", "at"], rows)) if rows else None


def _errors(instance: JsonObject, now: datetime) -> Iterator[RenderableType]:
    found: list[tuple[str, Any]] = [(f"thread {one['id']}", one["error"]) for one in instance["threads"] if one.get("error")]
    own = instance.get("error")  # that of a parked thread, unless the instance as a whole has one
    if own and own not in [error for _, error in found]:
        found.insert(0, ("instance", own))
    for number, (whose, error) in enumerate(found):
        lines = Text().append("\nerrors\n" if number == 0 else "", "bold")
        attempt = f", attempt {error['attempt']}" if error.get("attempt") else ""
        when = f", {ago(error['at'], now)}" if error.get("at") else ""
        place = f" at {error['path']}" if error.get("path") else ""
        lines.append(visible(f"{whose}{place}{attempt}{when}\n"))
        lines.append(visible(f"  {error['type']}: {error['message']}"), "red")
        if error.get("traceback"):
            lines.append(visible("".join(f"\n  {line}" for line in str(error["traceback"]).splitlines())), "dim")
        yield lines
