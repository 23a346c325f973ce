"""The fenced blocks of a Markdown page, and how they are run.

What a block is, its first line says after the three backquotes:

- `python run`: is executed. The blocks of one page are one story: they share their names, in order.
- `text output` right after such a block: what it prints, with `…` or `...` for any text.
- `console run`: each line behind `$ ` is given to a shell in an empty folder; the lines below it are what is printed.
- `python` or `console` alone: is only looked at: Python must parse, and a `make` target must exist.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^`\n]*)\n(?P<body>.*?)^(?P=indent)```[ \t]*$", re.MULTILINE | re.DOTALL)
COMMAND_SECONDS_MAX = 60  # a documented command that takes longer has hung


@dataclass(frozen=True)
class Block:
    """One fenced block: the words after the backquotes, the text, and the line of the page on which the text begins."""

    page: str
    line: int
    info: tuple[str, ...]
    text: str

    @property
    def language(self) -> str:
        return self.info[0] if self.info else ""

    @property
    def runs(self) -> bool:
        return "run" in self.info[1:]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str, text: str) -> Iterator[Block]:
    """Give the fenced blocks of *text*, in order."""
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start("body")) + 1
        indent = found["indent"]
        body = "".join(part.removeprefix(indent) for part in found["body"].splitlines(keepends=True))
        yield Block(page, line, tuple(found["info"].split()), body)


def story(blocks: list[Block]) -> str:
    """Return the Python that runs in *blocks*, each line under the number it has on the page.

    Written to a file, it lets tracebacks, and messages that quote a source line, point at the page.
    """
    lines: list[str] = []
    for block in blocks:
        if block.language == "python" and block.runs:
            lines += [""] * (block.line - 1 - len(lines)) + block.text.splitlines()
    return "\n".join(lines) + "\n"


def matches(expected: str, printed: str) -> bool:
    """Tell whether *printed* is what the page shows; `…` and `...` stand for anything."""
    parts = re.split(r"…|\.\.\.", expected.strip())
    pattern = ".*?".join(re.escape(part) for part in parts)
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


def commands_of(block: Block) -> Iterator[tuple[str, str]]:
    """Give each command of a console block with the output that the page shows below it."""
    # A line that ends with a backslash goes on in the next.
    lines = iter(block.text.replace("\\\n", "").splitlines())
    command, shown = "", list[str]()
    for line in lines:
        if line.startswith("$ "):
            if command:
                yield command, "\n".join(shown)
            command, shown = line[2:], []
        else:
            shown.append(line)
    if command:
        yield command, "\n".join(shown)


def run_console(block: Block, folder: Path, environment: dict[str, str]) -> None:
    """Run the commands of *block* in *folder*; a failure or an output other than the page's is an AssertionError."""
    for command, shown in commands_of(block):
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )
        where = f"{block}: $ {command}"
        assert done.returncode == 0, f"{where}\nended with {done.returncode}:\n{done.stdout}"
        if shown.strip():
            assert matches(shown, done.stdout), f"{where}\nprinted:\n{done.stdout}\nthe page shows:\n{shown}"


def faults_of(block: Block, targets: frozenset[str]) -> Iterator[str]:
    """Give what is wrong with a block without running it."""
    if block.language == "python":
        try:
            ast.parse(block.text)
        except SyntaxError as error:
            yield f"{block}: is no Python: {error}"
    elif block.language in ("console", "sh", "bash"):
        for target in re.findall(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*make ([a-z-]+)", block.text, re.MULTILINE):
            if target not in targets:
                yield f"{block}: the Makefile has no target {target!r}"
