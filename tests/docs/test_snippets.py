"""What the pages show works as shown: tests/docs/snippets.py says how a block is marked."""

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest

from tests.docs.snippets import Block, blocks_of, commands_of, faults_of, matches, run_console, story

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = {str(path.relative_to(ROOT)): list(blocks_of(str(path.relative_to(ROOT)), path.read_text("utf-8"))) for path in PAGES}
STORIES = [page for page, blocks in BLOCKS.items() if any(b.language == "python" and b.runs for b in blocks)]
CONSOLES = [b for blocks in BLOCKS.values() for b in blocks if b.language == "console" and b.runs]
TARGETS = frozenset(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def tell(blocks: list[Block], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the Python of one page as one module in *folder*, block by block, and compare what each prints."""
    page = blocks[0].page
    name = "page_" + re.sub(r"\W", "_", page.removesuffix(".md"))
    file = folder / f"{name}.py"
    file.write_text(story(blocks), "utf-8")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # pydantic looks the names of annotations up in the module that a class says it is from.
    sys.modules[name] = module
    try:
        for block, following in zip(blocks, [*blocks[1:], None], strict=True):
            if block.language != "python" or not block.runs:
                continue
            capsys.readouterr()
            exec(compile("\n" * (block.line - 1) + block.text, str(file), "exec"), vars(module))
            printed = capsys.readouterr().out
            if following is not None and following.info == ("text", "output"):
                assert matches(following.text, printed), f"{block} printed:\n{printed}"
    finally:
        del sys.modules[name]


@pytest.mark.parametrize("page", STORIES)
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    tell(BLOCKS[page], tmp_path, capsys)


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_what_a_beginner_types_runs_again(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the same folder, with what the first run has left there."""
    monkeypatch.chdir(tmp_path)
    tell(BLOCKS[page], tmp_path, capsys)
    left = set(tmp_path.iterdir())
    tell(BLOCKS[page], tmp_path, capsys)
    assert left == set(tmp_path.iterdir()) != set()


@pytest.mark.parametrize("block", CONSOLES, ids=str)
def test_console_runs(block: Block, tmp_path: Path) -> None:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    run_console(block, tmp_path, {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"})


def test_what_is_not_run_is_at_least_possible() -> None:
    assert "README.md" in BLOCKS
    assert [fault for blocks in BLOCKS.values() for block in blocks for fault in faults_of(block, TARGETS)] == []


# -- the checks themselves ---------------------------------------------------------------------------------------------

PAGE = """\
# A page

```python run
words = ["a", "b"]
print(len(words), object())
```

```text output
2 <object object at 0x…>
```

   ```python
   no name of this block is looked up
   ```

```python run
def last() -> str:
    return words[-1]
print(last())
```

```console run
$ echo one; echo \\
    two
one
two
$ true
```
"""


def page(text: str) -> list[Block]:
    return list(blocks_of("page.md", text))


def test_blocks_are_found() -> None:
    assert [(b.line, b.info, b.runs) for b in page(PAGE)] == [
        (4, ("python", "run"), True),
        (9, ("text", "output"), False),
        (13, ("python",), False),
        (17, ("python", "run"), True),
        (23, ("console", "run"), True),
    ]
    assert page(PAGE)[2].text == "no name of this block is looked up\n"
    assert story(page(PAGE)).splitlines()[16] == "def last() -> str:"
    assert list(commands_of(page(PAGE)[4])) == [("echo one; echo     two", "one\ntwo"), ("true", "")]


def test_a_good_page_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tell(page(PAGE), tmp_path, capsys)
    run_console(page(PAGE)[4], tmp_path, dict(os.environ))


@pytest.mark.parametrize(
    "text",
    [
        "```python run\nprint(1)\n```\n\n```text output\n2\n```\n",
        "```python run\nraise AssertionError\n```\n",
        "```python run\nassert False\n```\n",
    ],
)
def test_a_wrong_story_is_seen(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError):
        tell(page(text), tmp_path, capsys)


def test_a_traceback_names_the_line_of_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        tell(page("# Title\n\n```python run\nx = 1\nx / 0\n```\n"), tmp_path, capsys)
    assert raised.traceback[-1].lineno + 1 == 5
    assert str(raised.traceback[-1].statement) == "x / 0"


@pytest.mark.parametrize("text", ["```console run\n$ false\n```\n", "```console run\n$ echo one\ntwo\n```\n"])
def test_a_wrong_command_is_seen(text: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run_console(page(text)[0], tmp_path, dict(os.environ))


@pytest.mark.parametrize(
    "text",
    ["```python\ndef f(:\n```\n", "```console\n$ make tea\n```\n", "```sh\nDEMO_ONCE=1 make tea\n```\n"],
)
def test_an_impossible_block_is_seen(text: str) -> None:
    assert len(list(faults_of(page(text)[0], frozenset(("test",))))) == 1
    assert list(faults_of(page("```console\n$ make test\n```\n")[0], frozenset(("test",)))) == []
