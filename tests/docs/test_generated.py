"""What the pages say of statuses, limits and errors is what the code says."""

import re
from enum import StrEnum
from pathlib import Path

import pytest

import asyncflow
from asyncflow import instance, limits
from tests.docs.generated import PART, PARTS, error_classes, limit_tables, moves, pages, renewed, shown

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.stem)
def test_a_page_says_what_the_code_says(path: Path) -> None:
    text = path.read_text("utf-8")
    assert renewed(text) == text, "the code has changed: run `python -m tests.docs.generated`"


def test_every_part_stands_on_a_page() -> None:
    found = [match["name"] for text in pages().values() for match in PART.finditer(text)]
    assert sorted(found) == sorted(PARTS)


def test_every_limit_has_its_reason() -> None:
    names = {name for name in vars(limits) if name.isupper() and name != "KIB"}
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]{10,} \|$", limit_tables(), re.MULTILINE)
    assert set(rows) == names


def test_every_error_of_the_package_has_its_row() -> None:
    public = {getattr(asyncflow, name) for name in asyncflow.__all__}
    wanted = {thing for thing in public if isinstance(thing, type) and issubclass(thing, BaseException)}
    assert {asyncflow.Rejected, asyncflow.Cancelled, asyncflow.Pending} <= wanted
    assert sorted(cls.__name__ for cls in error_classes()) == sorted(cls.__name__ for cls in wanted)


def rules(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"^\*\*(\d+)\.", text, re.MULTILINE)]


def test_every_rule_can_be_looked_up() -> None:
    assert rules((ROOT / "docs" / "protocol.md").read_text("utf-8")) == list(range(1, 34))


def test_no_comment_names_a_rule_that_is_not_there() -> None:
    sources = [path for folder in ("asyncflow", "runner") for path in (ROOT / folder).rglob("*.py")]
    named = {int(n) for path in sources for n in re.findall(r"\brules? (\d+)", path.read_text("utf-8"))}
    assert len(named) > 20
    assert named <= set(range(1, 34))


# -- the checks themselves ---------------------------------------------------------------------------------------------


class Light(StrEnum):
    Red = "Red"
    Green = "Green"


def test_a_table_is_drawn() -> None:
    table = {Light.Red: frozenset(Light), Light.Green: frozenset()}
    text = moves(table, Light.Red)
    assert "Red --> Green" in text
    assert "Red --> Red" not in text
    assert "Green --> [*]" in text
    assert "| `Red` | `Red`, `Green` |" in text


def test_a_page_that_is_behind_is_seen() -> None:
    behind = "<!-- generated: limits -->\nold\n<!-- end of limits -->\n\nProse stays.\n"
    assert renewed(behind) != behind
    assert renewed(renewed(behind)) == renewed(behind)
    assert renewed(behind).endswith("<!-- end of limits -->\n\nProse stays.\n")
    with pytest.raises(KeyError):
        renewed("<!-- generated: weather -->\n<!-- end of weather -->\n")


@pytest.mark.parametrize("name, value, text", [
    ("STATE_BYTES", 4096, "4 KiB"),
    ("STEP_SECONDS", 240, "240 s"),
    ("GRACE_SECONDS", 900, "15 min"),
    ("POLL_SECONDS", (0.5, 4.0), "0.5, 4 s"),
    ("STATE_DEPTH", 1000, "1,000"),
    ("SEEN_DAYS", 7, "7 days"),
])  # fmt: skip
def test_values_have_their_unit(name: str, value: object, text: str) -> None:
    assert shown(name, value) == text
    with pytest.raises(TypeError):
        shown(name, "many")


def test_the_tables_of_statuses_are_complete() -> None:
    assert set(instance.TRANSITIONS) == set(instance.Status)
    assert set(instance.THREAD_TRANSITIONS) == set(instance.ThreadStatus)


def test_every_limit_is_kept_by_somebody() -> None:
    """A bound that nothing reads is a promise on paper."""
    folders = [ROOT / package for package in ("asyncflow", "runner")]
    sources = [path.read_text("utf-8") for folder in folders for path in folder.rglob("*.py") if path.name != "limits.py"]
    own = Path(limits.__file__).read_text("utf-8")
    used = re.compile(r"\blimits\.([A-Z_]+)\b")
    read = {name for text in sources for name in used.findall(text)}
    names = re.findall(r"^([A-Z_]+): Final", own, re.MULTILINE)
    assert len(names) > 40
    assert [name for name in names if name not in read and own.count(name) == 1] == []
