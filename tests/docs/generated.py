"""The parts of the pages that are made from the code: statuses, limits, errors.

A page marks such a part with `<!-- generated: NAME -->` and `<!-- end of NAME -->`. `python -m tests.docs.generated`
writes all of them anew, and a test says when that was forgotten.
"""

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from asyncflow import errors, instance, limits

DOCS: Final = Path(__file__).parents[2] / "docs"
S = TypeVar("S", bound=StrEnum)
PART: Final = re.compile(r"(?<=<!-- generated: )(?P<name>\w+) -->\n.*?(?=<!-- end of (?P=name) -->)", re.DOTALL)


# -- statuses ----------------------------------------------------------------------------------------------------------


def moves(table: Mapping[S, Collection[S]], begins: S, ends: str = "") -> str:
    """Draw a table of transitions and write it down: the picture first.

    Args:
        table: Where each status may lead.
        begins: The status of what was just made.
        ends: What leads out of every status; where it is empty, those that nothing leaves are the ends.
    """
    drawn = ["```mermaid", "stateDiagram-v2", f"    [*] --> {begins}"]
    written = ["| from | to |", "|---|---|"]
    for one, others in table.items():
        onward = [other for other in table if other in others]
        drawn += [f"    {one} --> {other}" for other in onward if other != one]
        drawn += [f"    {one} --> [*]{': ' + ends if ends else ''}"] if ends or not others else []
        written.append(f"| `{one}` | {', '.join(f'`{other}`' for other in onward) or 'nothing: it is an end'} |")
    return "\n".join([*drawn, "```", "", *written])


def instance_statuses() -> str:
    return moves(instance.TRANSITIONS, instance.Status.Running)


def thread_statuses() -> str:
    return moves(instance.THREAD_TRANSITIONS, instance.ThreadStatus.Resuming, ends="the thread ends")


# -- limits ------------------------------------------------------------------------------------------------------------


def limit_tables() -> str:
    """Write one table for each part of asyncflow/limits.py: the name, the value, the comment above it."""
    lines: list[str] = []
    reason: list[str] = []
    for line in inspect.getsource(limits).splitlines():
        if line.startswith("# -- "):
            title = line.strip("# -")
            lines += ["", f"### {title[0].upper()}{title[1:]}", "", "| name | value | why |", "|---|---|---|"]
            reason = []
        elif line.startswith("# "):
            reason.append(line.removeprefix("# "))
        elif reason and (found := re.match(r"(?P<name>[A-Z_]+): Final", line)):
            name = found["name"]
            lines.append(f"| `{name}` | {shown(name, getattr(limits, name))} | {' '.join(reason)} |")
            reason = []
    return "\n".join(lines).strip()


def shown(name: str, value: object) -> str:
    """Write a value with the unit that its name says."""
    if isinstance(value, tuple):
        return ", ".join(f"{one:g}" for one in value) + " s"
    if not isinstance(value, int | float):
        raise TypeError(f"the limit {name} is no number: {value!r}")
    if name == "JSON_INTEGER_MAX":
        return "2<sup>53</sup> \N{MINUS SIGN} 1"
    if name.endswith("_BYTES"):
        return f"{value / limits.KIB:g} KiB"
    if name.endswith("_SECONDS") or "_SECONDS_" in name:
        return f"{value:g} s" if value < 600 else f"{value / 60:g} min"
    if name.endswith("_DAYS"):
        return f"{value:,} days"
    return f"{value:,}"


# -- errors ------------------------------------------------------------------------------------------------------------

SAID_BY_WORKFLOW: Final = (errors.Rejected, errors.TerminalError)


def error_table() -> str:
    """Write a row for each class, those that callers meet most first: by code, then by name."""
    rows = [
        f"| `{cls.__name__}` | {code(cls)} | {inspect.cleandoc(cls.__doc__ or '').splitlines()[0]} |"
        for cls in sorted(error_classes(), key=lambda cls: (getattr(cls, "code", 0), cls.__name__))
    ]
    return "\n".join(["| class | code | when |", "|---|---|---|", *rows])


def code(cls: type[BaseException]) -> str:
    own = str(getattr(cls, "code", ""))
    return f"its own, else {own}" if cls in SAID_BY_WORKFLOW else own


def error_classes() -> Iterator[type[BaseException]]:
    """Give every class of `asyncflow` that a program may meet as an exception, each once."""
    for name, thing in vars(errors).items():
        if isinstance(thing, type) and issubclass(thing, BaseException) and not name.startswith("_"):
            yield thing


# -- the pages ---------------------------------------------------------------------------------------------------------

PARTS: Final[dict[str, Callable[[], str]]] = {
    "instance_statuses": instance_statuses,
    "thread_statuses": thread_statuses,
    "limits": limit_tables,
    "errors": error_table,
}


def renewed(text: str) -> str:
    """Return a page's *text* with its generated parts made anew.

    Raises:
        KeyError: It has a part that nothing makes.
    """
    return PART.sub(lambda found: f"{found['name']} -->\n\n{PARTS[found['name']]()}\n\n", text)


def pages() -> dict[Path, str]:
    """Give the pages that have generated parts, with their text."""
    texts = {path: path.read_text("utf-8") for path in sorted(DOCS.glob("*.md"))}
    return {path: text for path, text in texts.items() if PART.search(text)}


def main() -> None:
    """Write the generated parts of all pages."""
    for path, text in pages().items():
        path.write_text(renewed(text), "utf-8")


if __name__ == "__main__":
    main()
