"""A Runner in a server of the user's own: nothing is begun before the first delivery, and a fork begins anew."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """
import os, sys, threading
from runner import Runner
from tests.tasks.workflows import Row

runner = Runner([Row], store=sys.argv[1], scheduler="cloudtasks://p/l/q", base_url="http://localhost", hmac_keys=["k" * 32])
woken = []
runner.requests.wake = runner.scheduler.wake = lambda key, at: woken.append(key) or True
app = runner.create_app()  # as gunicorn does with --preload


def deliver(id):
    from runner.deliveries import Signatures
    body = b'{"workflow":"Row","id":"%s"}' % id.encode()
    headers = {**Signatures(("k" * 32,)).sign("wake", body), "Content-Type": "application/json"}
    return app.test_client().post("/tasks/wake", data=body, headers=headers).json["attempts"]


def threads():
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("asyncflow"))


assert threads() == [], threads()
for id in ("a", "b", "c"):
    runner.start(Row(), id=id)
if sys.argv[2] == "used":
    assert deliver("a") == 3
    assert "asyncflow-actions" in threads()
children = []
for id in ("b", "c"):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert threads() == []
            assert deliver(id) == 3
            assert runner.get(Row, id).state.done == ["one", "two", "three"]
            runner.close()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        os._exit(code)
    children.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
assert deliver("a") == (0 if sys.argv[2] == "used" else 3)
runner.close()
assert "asyncflow-actions" not in threads(), threads()  # others that are told to end do so by themselves
"""


def ran(tmp_path: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"sqlite:///{tmp_path / 'store.db'}", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_children_of_a_server_that_has_run_nothing_yet(tmp_path: Path) -> None:
    ran(tmp_path, "fresh")


def test_children_of_a_process_that_has_run_steps_already(tmp_path: Path) -> None:
    ran(tmp_path, "used")
