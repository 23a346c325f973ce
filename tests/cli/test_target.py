"""Finding workflows, and what is said when there are none."""

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from asyncflow import DefinitionError
from runner.target import TargetError, find_workflows, folders_of, shadow_in
from tests.cli.conftest import Shell

SOURCE = """
from asyncflow import Return, S, Section, Workflow

class {name}(Workflow):
    def definition(self) -> Section[int]:
        return S(Return({value}))
"""


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(dedent(text), "utf-8")
    return file


def flow(file: Path, *names: str) -> Path:
    return write(file, "\n".join(SOURCE.format(name=name, value=1) for name in names))


def names(target: str, *folders: Path) -> list[str]:
    return [one.__name__ for one in find_workflows(target, folders)]


# -- what is found -----------------------------------------------------------------------------------------------------


def test_a_module_gives_all_its_workflows(tmp_path: Path) -> None:
    flow(tmp_path / "mod_a.py", "First", "_Hidden", "Second")
    assert names("mod_a", tmp_path) == ["First", "Second"]


def test_a_class_of_a_module(tmp_path: Path) -> None:
    flow(tmp_path / "mod_b.py", "First", "_Hidden", "Second")
    assert names("mod_b:Second", tmp_path) == ["Second"]
    assert names("mod_b:_Hidden", tmp_path) == ["_Hidden"]


def test_a_list_of_classes(tmp_path: Path) -> None:
    file = flow(tmp_path / "mod_c.py", "First", "Second")
    file.write_text(file.read_text() + "\nALL = [Second, First]\n")
    assert names("mod_c:ALL", tmp_path) == ["Second", "First"]


def test_a_file_and_a_class_of_it(tmp_path: Path) -> None:
    flow(tmp_path / "flows" / "file_a.py", "First", "Second")
    assert names("flows/file_a.py", tmp_path) == ["First", "Second"]
    assert names(f"{tmp_path}/flows/file_a.py:First", tmp_path) == ["First"]


def test_a_file_imports_its_neighbours(tmp_path: Path) -> None:
    flow(tmp_path / "flows" / "neighbour_a.py", "Base")
    write(tmp_path / "flows" / "file_b.py", "from neighbour_a import Base")
    assert names("flows/file_b.py", tmp_path) == ["Base"]


def test_a_file_of_a_package_is_imported_as_that(tmp_path: Path) -> None:
    flow(tmp_path / "pack_a" / "inner.py", "Inner")
    write(tmp_path / "pack_a" / "__init__.py", "")
    write(tmp_path / "pack_a" / "flows.py", "from .inner import Inner")
    found = find_workflows("pack_a/flows.py", [tmp_path])
    assert [one.__module__ for one in found] == ["pack_a.inner"]
    assert "pack_a.flows" in sys.modules


def test_several_targets_and_no_class_twice(tmp_path: Path) -> None:
    flow(tmp_path / "mod_d.py", "First")
    flow(tmp_path / "mod_e.py", "Second")
    assert names("mod_d, mod_e:Second ,mod_d:First", tmp_path) == ["First", "Second"]


def test_folders_are_looked_at_in_their_order(tmp_path: Path) -> None:
    flow(tmp_path / "one" / "mod_f.py", "One")
    flow(tmp_path / "two" / "mod_f.py", "Two")
    flow(tmp_path / "two" / "mod_g.py", "Three")
    assert names("mod_f,mod_g.py", tmp_path / "one", tmp_path / "two") == ["One", "Three"]


def test_the_folders_to_watch_are_known_without_an_import(tmp_path: Path) -> None:
    write(tmp_path / "far" / "flows" / "broken.py", "this is no Python")
    here = tmp_path / "here"
    write(here / "sub" / "file.py", "neither is this")
    assert folders_of("module:Class", [here]) == [here]
    assert folders_of("sub/file.py", [here]) == [here]
    assert folders_of(f"{tmp_path}/far/flows/broken.py:X,sub/file.py", [here]) == [here, tmp_path / "far" / "flows"]


# -- what is not -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target, said", [
    ("", "expected a module, module:Class or a file, found ''"),
    (":Order", "expected a module, module:Class or a file, found ':Order'"),
    ("no-module", "expected a module, module:Class or a file that ends with .py, found 'no-module'"),
    ("shops", "there is no module 'shops' in {here} or among what is installed: name a module that can be imported"),
    ("inside.here", "there is no module 'inside' in {here} or among"),
    ("wrong.py", "there is no file {here}/wrong.py; did you mean {here}/wrong_a.py?"),
    ("zzz.py", "there is no file {here}/zzz.py"),
    ("empty_a", "empty_a has no workflow: expected a subclass of asyncflow.Workflow with a definition() in {here}"),
    ("wrong_a:Ordr", "wrong_a:Ordr: expected 'Ordr' to be a workflow class, it is not there; wrong_a has: Order"),
    ("wrong_a:Section", "expected 'Section' to be a workflow class, it is a type; wrong_a has: Order"),
    ("wrong_a:Workflow", "expected 'Workflow' to be a workflow class"),
])  # fmt: skip
def test_what_is_not_found_is_told(tmp_path: Path, target: str, said: str) -> None:
    flow(tmp_path / "wrong_a.py", "Order")
    write(tmp_path / "empty_a.py", "from asyncflow import Workflow")
    with pytest.raises(TargetError) as raised:
        find_workflows(target, [tmp_path])
    assert said.format(here=tmp_path) in str(raised.value)


def test_a_file_given_as_a_module_is_named(tmp_path: Path) -> None:
    flow(tmp_path / "sub-folder" / "mod_h.py", "Order")
    with pytest.raises(TargetError, match="expected a module"):
        find_workflows("sub-folder.mod_h", [tmp_path])


def test_a_file_with_the_name_of_another_module_is_refused(tmp_path: Path) -> None:
    flow(tmp_path / "queue.py", "Order")
    with pytest.raises(TargetError, match=r"would be the module 'queue', which is another one \(.*queue.py\): rename the file"):
        find_workflows("queue.py", [tmp_path])


def test_a_module_that_raises_is_told_with_the_users_lines_alone(tmp_path: Path) -> None:
    write(tmp_path / "raises_a.py", "import raises_b")
    write(tmp_path / "raises_b.py", "def f():\n    return 1 / 0\nf()")
    with pytest.raises(TargetError) as raised:
        find_workflows("raises_a", [tmp_path])
    text = str(raised.value)
    assert text.startswith("raises_a cannot be imported: ZeroDivisionError: division by zero\n")
    assert f'File "{tmp_path}/raises_b.py", line 2, in f' in text
    assert "importlib" not in text
    assert "frozen" not in text


def test_a_missing_import_inside_is_not_taken_for_a_missing_target(tmp_path: Path) -> None:
    write(tmp_path / "needs_a.py", "import something_that_is_not_there")
    with pytest.raises(TargetError, match=r"needs_a cannot be imported: ModuleNotFoundError.*something_that_is_not_there"):
        find_workflows("needs_a", [tmp_path])


def test_a_module_that_exits_is_told(tmp_path: Path) -> None:
    write(tmp_path / "exits_a.py", "raise SystemExit(3)")
    with pytest.raises(TargetError, match="exits_a cannot be imported: SystemExit: 3"):
        find_workflows("exits_a", [tmp_path])


def test_a_class_that_can_be_no_workflow_is_told_by_its_own_error(tmp_path: Path) -> None:
    write(tmp_path / "bad_a.py", "from asyncflow import Workflow\nclass Bad(Workflow):\n    context: int = 0\n")
    with pytest.raises(DefinitionError, match="context"):
        find_workflows("bad_a", [tmp_path])


# -- shadows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["runner.py", "runner/__init__.py", "asyncflow.py"])
def test_a_module_that_hides_ours_is_seen(tmp_path: Path, file: str) -> None:
    assert shadow_in([tmp_path]) is None
    write(tmp_path / file, "")
    said = shadow_in([tmp_path])
    assert said is not None
    assert f"{tmp_path / file} has the name of asyncflow's package" in said
    assert said.endswith("Rename yours")


def test_our_own_folder_hides_nothing() -> None:
    assert shadow_in([Path(__file__).parents[2]]) is None


def test_a_target_called_like_ours_is_refused(tmp_path: Path) -> None:
    flow(tmp_path / "runner.py", "Order")
    for target in ("runner.py", "runner", "runner:Order"):
        with pytest.raises(TargetError, match="your module 'runner' and asyncflow's package 'runner' hide each other: rename"):
            find_workflows(target, [tmp_path])


def test_an_import_that_meets_ours_instead_of_the_users_is_explained(tmp_path: Path) -> None:
    write(tmp_path / "runner.py", "def run_everything(): ...")
    write(tmp_path / "uses_a.py", "from runner import run_everything")
    with pytest.raises(TargetError) as raised:
        find_workflows("uses_a", [tmp_path])
    assert "uses_a cannot be imported: ImportError: cannot import name 'run_everything' from 'runner'" in str(raised.value)
    assert f"{tmp_path}/runner.py has the name of asyncflow's package 'runner'" in str(raised.value)


def test_the_command_warns_of_a_shadow_when_it_begins(shell: Shell, tmp_path: Path) -> None:
    write(tmp_path / "runner.py", "")
    result = shell("settings")
    assert f"warning: {tmp_path}/runner.py has the name of asyncflow's package 'runner'" in result.stderr
    assert "runner.py" not in result.stdout


def test_the_command_says_what_it_cannot_find(shell: Shell) -> None:
    assert "there is no module 'nowhere'" in shell("docs", "--app", "nowhere", code=2).stderr
    assert "this needs the code of the workflows: say where it is by --app" in shell("docs", code=2).stderr


def test_the_command_tells_all_problems_of_a_definition(shell: Shell, tmp_path: Path) -> None:
    write(
        tmp_path / "bad_b.py",
        """
        from asyncflow import S, Step, Workflow
        class Bad(Workflow):
            def step(self) -> None: ...
            def definition(self):
                return S(Step(self.step), Step(self.step), Step("x/y", self.step))
        """,
    )
    result = shell("docs", "--app", "bad_b.py", code=2)
    assert "error: the definition has 2 problems:" in result.stderr
    assert f"{tmp_path}/bad_b.py:6" in result.stderr


def test_a_fault_of_syntax_is_told_with_its_place(tmp_path: Path) -> None:
    file = write(tmp_path / "mod_y.py", "x = 1\nclass :\n")
    with pytest.raises(TargetError) as refused:
        names("mod_y.py", tmp_path)
    assert str(refused.value).startswith(f"mod_y.py cannot be imported: SyntaxError: {file}:2: invalid syntax\n  class :")
