"""Nothing that is stored says where it was written: no developer's folder, no host of a package registry."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tidy.sources import ROOT, text_files

# Where developers and their machines keep checkouts. Only absolute paths: not behind a word, a dot or another folder.
DEVELOPER_PATH = re.compile(r"(?<![\w./~$}*-])(?:/(?:home|Users|root|work|workspace|builds)/[\w.]|[A-Z]:\\Users\\)")
REGISTRY = re.compile(
    r"pypi\.org|pythonhosted\.org|registry\.npmjs\.org|registry\.yarnpkg\.com|proxy\.golang\.org"
    r"|deb\.debian\.org|(?:extra[-_])?index[-_]url|find[-_]links",
    re.IGNORECASE,
)


def traces(path: str, text: str, here: tuple[str, ...] = ()) -> Iterator[str]:
    """Give each line of *text* that names a developer's folder, one of the folders *here*, or a registry."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in (*DEVELOPER_PATH.findall(line), *REGISTRY.findall(line), *(f for f in here if f in line)):
            yield f"{path}:{number}: names {found}"


def test_no_file_names_a_workplace() -> None:
    here = tuple(str(folder) for folder in (ROOT, Path.home()) if len(folder.parts) > 2)
    files = text_files()
    assert files
    faults = [fault for path in files for fault in traces(str(path.relative_to(ROOT)), path.read_text("utf-8", "replace"), here)]
    assert faults == []


# -- the check itself --------------------------------------------------------------------------------------------------

# Put together here, so that this file is not found by its own check.
SLASH = "/"


@pytest.mark.parametrize(
    "line",
    [
        f"open('{SLASH}home/ann/asyncflow/x.db')",
        f"see {SLASH}Users/ann/notes.md",
        f"({SLASH}root/.cache)",
        f"path={SLASH}work/main",
        "C:" + r"\Users\ann",
        "https:" + "//pypi" + ".org/simple",
        "pip install --index" + "-url x",
        "PIP_FIND" + "_LINKS=x",
    ],
)
def test_a_trace_is_seen(line: str) -> None:
    assert len(list(traces("x.md", line))) == 1


def test_this_checkout_is_seen() -> None:
    assert len(list(traces("x.md", "cd /opt/src/asyncflow", here=("/opt/src/asyncflow",)))) == 1


@pytest.mark.parametrize(
    "line", ["POST /workflows/PizzaOrder", "taken on PyPI", "https://example.org/home/page", "~/work/x", "/tmp/x.db"]
)
def test_what_is_no_trace_is_left_alone(line: str) -> None:
    assert list(traces("x.md", line)) == []
