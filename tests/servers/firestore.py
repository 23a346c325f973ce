"""A Firestore emulator for the tests of one process: begun by the first that needs it, gone with the process.

It is the one of the Google Cloud SDK, run by Java without the SDK's own scripts, which leave it behind when they are killed.
An emulator that `FIRESTORE_EMULATOR_HOST` names already is used as it is.
"""

import atexit
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from functools import lru_cache
from pathlib import Path
from typing import Final

import pytest

VARIABLE: Final = "FIRESTORE_EMULATOR_HOST"
SERVER: Final = pytest.mark.server("firestore")
"""The mark of every test that needs it."""
HOW_TO_GET_IT: Final = (
    "apt-get install default-jre-headless google-cloud-cli google-cloud-cli-firestore-emulator, or `gcloud components install"
    " cloud-firestore-emulator`, or set FIRESTORE_EMULATOR_HOST"
)
COLLECTION: Final = "instances"

_JAR: Final = "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar"
_MAIN: Final = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
# Quick to begin and small: it serves tests, and there are two of it where tests run on two cores.
_JAVA_OPTIONS: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m", "-Duser.language=en")
_PATIENCE_SECONDS: Final = 60.0
"""How long it may take to begin; about one second on an idle machine."""
_PR_SET_PDEATHSIG: Final = 1


@pytest.fixture
def firestore_url(monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty store: a project of this test's own."""
    return new_url(monkeypatch)


def new_url(monkeypatch: pytest.MonkeyPatch, host: str | None = None) -> str:
    """Give the URL of a store in a project that nobody has used, on the emulator (or at *host*, a proxy); skip without one."""
    monkeypatch.setenv(VARIABLE, host or emulator())
    return f"firestore://demo-{secrets.token_hex(6)}/{COLLECTION}"


@lru_cache(maxsize=1)
def emulator() -> str:
    """Give HOST:PORT of the emulator of this process; skip the test where there is none."""
    given = os.environ.get(VARIABLE)
    if given:
        return given
    jar = find_jar()
    if jar is None or shutil.which("java") is None:
        pytest.skip(f"there is no Firestore emulator: {HOW_TO_GET_IT}")
    return _begin(jar)


def find_jar() -> Path | None:
    """Find the emulator in the Google Cloud SDK that `gcloud` belongs to."""
    command = shutil.which("gcloud")
    if command is None:
        return None
    jar = Path(command).resolve().parents[1] / _JAR
    return jar if jar.exists() else None


def _begin(jar: Path) -> str:
    for _ in range(3):
        port = _free_port()
        process = _start(jar, port)
        if _is_ready(process, port):
            return f"127.0.0.1:{port}"
        _end(process)  # somebody else took the port meanwhile
    raise AssertionError("the Firestore emulator does not begin")


def _start(jar: Path, port: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        ["java", *_JAVA_OPTIONS, "-cp", jar, _MAIN, "--host", "127.0.0.1", "--port", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the tests
        preexec_fn=_die_with_parent,  # noqa: PLW1509 (the tests have no threads yet that hold a lock which this needs)
        cwd=tempfile.gettempdir(),
    )
    atexit.register(_end, process)
    return process


def _die_with_parent() -> None:
    """Let the kernel end the server when the tests are killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _is_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + _PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
