"""The files that the tidy tests read."""

import ast
import re
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE_FOLDERS = ("asyncflow", "runner", "examples", "benchmarks")
# Without a suffix: Makefile, LICENSE, the scripts of .ci.
TEXT_FILE = re.compile(r"[^.]+|\.gitignore|.*\.(cfg|css|html|ini|js|jsonl?|md|pyi?|sh|sql|svg|toml|txt|ya?ml)")


@dataclass(frozen=True)
class Source:
    """One Python file: the path as shown in a fault, the dotted name under which it is imported, and its text."""

    path: str
    text: str

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)


def read_sources(*folders: str) -> list[Source]:
    """Return every Python file below *folders* of the root, sorted by path."""
    return [
        Source(str(path.relative_to(ROOT)), path.read_text("utf-8"))
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]


def text_files() -> list[Path]:
    """Return the text files of the project: what git tracks or is about to; without git, what lies in its folders."""
    # safe.directory: CI may own the checkout as another user than the one that runs the tests.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True)
    if listing.returncode == 0:
        paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:  # an unpacked archive
        folders = [ROOT / folder for folder in (*SOURCE_FOLDERS, "tests", "docs", ".ci")]
        paths = [*ROOT.iterdir(), *(path for folder in folders for path in folder.rglob("*"))]
    return sorted(path for path in paths if TEXT_FILE.fullmatch(path.name) and path.is_file())
