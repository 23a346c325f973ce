"""Every link of the documentation to a place in this repository leads somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ +(?P<title>.+)$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Return the anchors that a Markdown viewer gives to the headings of *text*."""
    titles = (found["title"].strip().lower() for found in HEADING.finditer(text))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def dead_links(page: Path) -> Iterator[str]:
    """Give each link of *page* to a file or a heading that is not there; addresses elsewhere are not looked at."""
    for found in LINK.finditer(page.read_text("utf-8")):
        target = found["target"]
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text("utf-8"))):
            yield f"{page.name}: {target}"


def test_no_link_is_dead() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert pages
    assert [dead for page in pages for dead in dead_links(page)] == []


@pytest.mark.parametrize("target, dead", [
    ("other.md", False),
    ("other.md#what-if-a-step-fails", False),
    ("#here", False),
    ("https://example.org/x", False),
    ("missing.md", True),
    ("other.md#elsewhere", True),
    ("#elsewhere", True),
])  # fmt: skip
def test_a_dead_link_is_seen(tmp_path: Path, target: str, dead: bool) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Here\n\nSee [this]({target}).\n", "utf-8")
    (tmp_path / "other.md").write_text("## What if a `Step` fails?\n", "utf-8")
    assert list(dead_links(page)) == ([f"page.md: {target}"] if dead else [])
