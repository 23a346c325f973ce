"""The `gcloud-tasks-emulator` of PyPI, as a check that is not ours: begun by the first test that needs it, gone with the process.

It wants older libraries than we do, so it lives in an environment of its own, `.tools/gcloud-tasks-emulator`, which is built
once. By itself it listens on all interfaces; here it is made to listen on loopback. An emulator that
`CLOUD_TASKS_EMULATOR_HOST` names already is used as it is.
"""

import atexit
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Final

import pytest

VARIABLE: Final = "CLOUD_TASKS_EMULATOR_HOST"
SERVER: Final = pytest.mark.server("gcloud-tasks-emulator")
"""The mark of every test that needs it."""
PACKAGES: Final = ("gcloud-tasks-emulator==0.6.2", "setuptools<81")
ROOT: Final = Path(__file__).parents[2]
HOME: Final = ROOT / ".tools" / "gcloud-tasks-emulator"
PATIENCE_SECONDS: Final = 60.0
"""How long it may take to begin; about a second on an idle machine."""
BUILD_SECONDS: Final = 240.0
"""How long its environment may take to be built, with pip and a slow line."""

# Its own command has no option for where to listen.
_PROGRAM: Final = """
import sys
import grpc
real = grpc.server
def on_loopback(*arguments, **others):
    server = real(*arguments, **others)
    add = server.add_insecure_port
    server.add_insecure_port = lambda address: add(address.replace("[::]", "127.0.0.1"))
    return server
grpc.server = on_loopback
from gcloud_tasks_emulator.server import create_server
create_server("127.0.0.1", int(sys.argv[1])).run()
"""
_PR_SET_PDEATHSIG: Final = 1


@lru_cache(maxsize=1)
def emulator() -> str:
    """Give HOST:PORT of the emulator of this process; skip the test where there is none."""
    given = os.environ.get(VARIABLE)
    if given:
        return given
    python = _environment()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [python, "-c", _PROGRAM, str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the tests
        preexec_fn=_die_with_parent,  # noqa: PLW1509 (it only asks the kernel for a signal)
    )
    atexit.register(_end, process)
    until = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return f"127.0.0.1:{port}"
    raise AssertionError("gcloud-tasks-emulator does not begin")


def _environment() -> Path:
    """Give the interpreter of its environment, built now if need be; one process builds, others wait for it."""
    python = HOME / "bin" / "python"
    try:
        HOME.parent.mkdir(exist_ok=True)
        with (HOME.parent / "gcloud-tasks-emulator.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (HOME / "built").exists():
                _build(python)
                (HOME / "built").touch()
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        pytest.skip(f"gcloud-tasks-emulator cannot be installed into {HOME.relative_to(ROOT)}: {said[-300:]}")
    return python


def _build(python: Path) -> None:
    shutil.rmtree(HOME, ignore_errors=True)
    uv = shutil.which("uv") or shutil.which("uv", path=str(ROOT / ".tools" / "bin"))
    if uv is not None:
        _run(uv, "venv", "--quiet", "--python", sys.executable, str(HOME))
        _run(uv, "pip", "install", "--quiet", "--python", str(python), *PACKAGES)
    else:
        _run(sys.executable, "-m", "venv", str(HOME))
        _run(str(python), "-m", "pip", "install", "--quiet", *PACKAGES)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=BUILD_SECONDS)


def _die_with_parent() -> None:
    """Let the kernel end the server when the tests are killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
