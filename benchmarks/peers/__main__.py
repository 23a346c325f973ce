"""`make bench-peers`: ten durable steps a workflow, here and elsewhere, in one run on one machine; prints the ratios."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import postgres, sqlite

HERE = Path(__file__).parent
ENVIRONMENTS = Path(".bench-peers")
PEERS = {
    "dbos": (["dbos"], "dbos_steps.py"),
    "langgraph": (["langgraph", "langgraph-checkpoint-sqlite"], "langgraph_sqlite.py"),
}
ROUNDS_ON_POSTGRES = 3


def environment(name: str, packages: list[str]) -> Path:
    """Give the interpreter of a peer's environment, made once."""
    where = ENVIRONMENTS / name
    python = where / "bin" / "python"
    if not (where / "ready").exists():
        print(f"{name}: installing {', '.join(packages)} …", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(where)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
        (where / "ready").touch()
    return python


def peer(name: str, *arguments: str) -> dict[str, object]:
    """Run one peer's script; it prints one JSON object."""
    packages, script = PEERS[name]
    python = environment(name, packages)
    done = subprocess.run([str(python), str(HERE / script), *arguments], check=True, capture_output=True, text=True)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {found}", file=sys.stderr, flush=True)
    return found


def show(store: str, many_of_ours: int, ours: tuple[float, float], found: dict[str, dict[str, object]]) -> None:
    """Print one table."""
    one, many = ours
    print(f"{'on ' + store:24}{'1 at a time':>14}{'many at once':>14}   steps/s")
    print(f"{f'asyncflow ({many_of_ours} at once)':24}{one:14.0f}{many:14.0f}")
    for name, figures in found.items():
        their_one, their_many = float(str(figures["one"])), float(str(figures["many"]))
        print(f"{name + ' ' + str(figures['version']):24}{their_one:14.0f}{their_many:14.0f}")
        print(f"{'  asyncflow is':24}{one / their_one:13.1f}x{many / their_many:13.1f}x")


def on_sqlite() -> None:
    """Measure ours and theirs in turns."""
    ours_1, ours_many = [], []
    found: dict[str, dict[str, object]] = {}
    for name in PEERS:
        ours_1.append(sqlite.steps_per_second(1, 60))
        ours_many.append(sqlite.steps_per_second(32, 640))
        found[name] = peer(name)
    show("SQLite", 32, (sqlite.median(ours_1), sqlite.median(ours_many)), found)


def on_postgres() -> None:
    """The same on one server, which flushes every commit."""
    ours_1, ours_many, theirs = [], [], []
    with postgres.server() as cluster:
        for number in range(ROUNDS_ON_POSTGRES):
            ours_1.append(postgres.steps_per_second(cluster, 1, 60))
            ours_many.append(postgres.steps_per_second(cluster, 16, 640))
            theirs.append(peer("dbos", cluster.url(f"dbos_{number}")))
    medians = {key: sqlite.median([float(str(figures[key])) for figures in theirs]) for key in ("one", "many")}
    found: dict[str, object] = {**theirs[0], **medians}
    show("Postgres", 16, (sqlite.median(ours_1), sqlite.median(ours_many)), {"dbos": found})


if __name__ == "__main__":
    on_sqlite()
    on_postgres()
