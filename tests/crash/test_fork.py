"""A Runner that was opened before a fork, as by a server that loads the application first, works on both sides."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import os, sys
from asyncflow import For, Return, S, Section, Step, WaitEvent, Workflow, event
from runner import Runner

class Order(Workflow):
    added: list[str] = []
    packed: int = 0

    @event
    def add(self, line: str) -> int:
        self.added.append(line)
        return len(self.added)

    def pack(self) -> None:
        self.packed += 1

    def definition(self) -> Section[list[str]]:
        return S(
            For("open", lambda: len(self.added) < 2, WaitEvent(self.add)),
            Step(self.pack),
            Return(lambda: self.added),
        )

runner = Runner([Order], store=sys.argv[1])
if "working" in sys.argv:
    runner.__enter__()
before = runner.start(Order(), id="before")
assert before.send(Order.add, "parent") == 1
children = [os.fork()]
if children[0] and "two workers" in sys.argv:
    children.append(os.fork())
if not children[-1]:
    try:
        first = len(children) == 1
        if first:
            assert runner.get(Order, "before").send(Order.add, "child") == 2
            runner.start(Order(), id="child").send(Order.add, "child")
        if "worker" in sys.argv[-1]:
            runner.__enter__()
            assert runner.get(Order, "before").result(20) == ["parent", "child"]
            runner.drain()
        runner.close()
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
for child in children:
    _, status = os.waitpid(child, 0)
    assert status == 0, status
assert runner.get(Order, "child").send(Order.add, "parent") == 2
if "working" not in sys.argv:
    runner.__enter__()
assert before.result(20) == ["parent", "child"]
assert runner.get(Order, "child").result(20) == ["child", "parent"]
runner.__exit__(None, None, None)
print("both worked")
"""


@pytest.mark.parametrize(
    "how",
    ["", "working", "worker", "two workers"],
    ids=["no worker", "in the parent", "in the child", "in two children"],
)
def test_a_runner_works_on_both_sides_of_a_fork(how: str, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", PROGRAM, f"sqlite:///{tmp_path / 'store.db'}", *([how] if how else [])]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("both worked\n", 0), done.stderr
