"""`make demo`: see it die and go on.

    python -m examples.demo           all of it; a server is left running to play with, until Ctrl-C
    python -m examples.demo order     one pizza order, killed in the middle of a step
    python -m examples.demo many      many orders, killed twice
    python -m examples.demo server    the shop over HTTP, killed once (DEMO_PORT says where)
    DEMO_ONCE=1 python -m examples.demo   asks nothing, leaves nothing running, exits 0

Every part runs the workflow in a process of its own, which ends itself with SIGKILL: no handler runs, nothing is flushed.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import Request, urlopen

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.tree import Tree

from asyncflow import Status
from asyncflow.schema import definition_json
from examples.demo_orders import PATIENCE_SECONDS, DemoOrder, open_runner
from runner import Handle, Runner

CONSOLE = Console(highlight=False)
ROOT = Path(__file__).parent.parent
EVENTS: list[dict[str, Any]] = [
    {"event": "add", "input": {"name": "Margherita", "count": 2}},
    {"event": "add", "input": {"name": "Funghi"}},
    {"event": "submit"},
    {"event": "confirm"},
    {"event": "pay", "input": "23.50"},
    {"event": "cooked"},
    {"event": "take"},
    {"event": "deliver"},
]
"""What the customer and the staff do, one JSON line each."""
ORDERS = 60
"""How many orders the second part starts."""
KILLS = 2


def child(store: Path, *words: str, kill_after: int = 0) -> subprocess.Popen[str]:
    """Start the process that does the work; it kills itself in its `kill_after`-th ticket (0: never)."""
    environment = {**os.environ, "DEMO_KILL_AFTER": str(kill_after), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "examples.demo_orders", str(store), *words]
    return subprocess.Popen(command, env=environment, text=True)


# -- one order ---------------------------------------------------------------------------------------------------------


def one_order(folder: Path) -> None:
    """Feed a file of events to an order whose process dies in the middle of a step."""
    CONSOLE.rule("[bold]1. One order, killed in the middle of a step")
    store, events = folder / "one.db", folder / "events.jsonl"
    events.write_text("".join(f"{json.dumps(line)}\n" for line in EVENTS))
    CONSOLE.print(f"{len(EVENTS)} events lie in a file of JSON lines; a process feeds them to the order DemoOrder/o-1.")
    first = child(store, "feed", str(events), kill_after=1)
    died = -first.wait()
    CONSOLE.print(
        f"[red]The process was ended by signal {died} ({signal.Signals(died).name}) while it printed the kitchen's ticket."
    )
    with_what_is_stored(store)
    CONSOLE.print("Now the same command again, with the same file:")
    began = time.monotonic()
    second = child(store, "feed", str(events))
    code = second.wait()
    CONSOLE.print(f"[green]It went on where it stood and ended with exit code {code} after {time.monotonic() - began:.1f} s.")
    with_what_is_stored(store, whole=True)


def with_what_is_stored(store: Path, *, whole: bool = False) -> None:
    """Show the order as the file has it, from a process that runs no step."""
    runner = open_runner(store)
    try:
        order = runner.get(DemoOrder, "o-1")
        show_tree(order)
        if whole:
            show_history(order)
            CONSOLE.print(f"status [bold]{order.status}[/], output [bold]{order.output}[/]")
    finally:
        runner.close()


def show_tree(order: Handle[DemoOrder]) -> None:
    """Draw the definition with each thread's position marked."""
    threads = order.threads
    title = f"[bold]DemoOrder/{order.id}[/] is {order.status}"
    tree = Tree(title)

    def add(branch: Tree, node: dict[str, object]) -> None:
        here = [name for name, path in threads.items() if path == node["path"] and path]
        mark = f"  [bold yellow]<- {', '.join(here)}" if here else ""
        inside = branch.add(f"{node['name']} [dim]{node['kind']}[/]{mark}")
        for part in ("body", "cases", "finally"):
            for below in node.get(part) or ():  # type: ignore[attr-defined]
                add(inside, below)

    for node in definition_json(DemoOrder)["body"]:  # type: ignore[union-attr]
        add(tree, node)  # type: ignore[arg-type]
    CONSOLE.print(tree)


def show_history(order: Handle[DemoOrder]) -> None:
    """Print every transition."""
    table = Table("n", "kind", "thread", "where", "attempt", "what", box=None, pad_edge=False)
    for entry in order.history():
        error = entry.get("error")
        what = error["message"] if error else json.dumps(entry["input"]) if "input" in entry else ""
        table.add_row(*(str(entry.get(name, "")) for name in ("n", "kind", "thread", "path", "attempt")), str(what))
    CONSOLE.print(table)


# -- many orders -------------------------------------------------------------------------------------------------------


def many_orders(folder: Path) -> None:
    """Start many orders, kill the process twice, and see that every one reaches its end."""
    CONSOLE.rule(f"[bold]2. {ORDERS} orders, killed {KILLS} times")
    store = folder / "many.db"
    runner = open_runner(store)
    lives = 0
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=CONSOLE) as progress:
            bar = progress.add_task("orders at the door", total=ORDERS)
            while True:
                kill_after = ORDERS // (KILLS + 1) if lives < KILLS else 0
                process = child(store, "many", str(ORDERS), kill_after=kill_after)
                lives += 1
                while process.poll() is None:
                    progress.update(bar, completed=ended(runner))
                    time.sleep(0.1)
                progress.update(bar, completed=ended(runner))
                if process.returncode == 0:
                    break
                assert process.returncode < 0, f"the process failed with exit code {process.returncode}"
                progress.console.print(f"[red]killed ({signal.Signals(-process.returncode).name}) with {ended(runner)} at the door")
        orders = list(runner.list(DemoOrder))
        statuses = [order.status for order in orders]
        attempts = sum(1 for order in orders for entry in order.history() if entry["kind"] == "failed")
        tickets = [order.state.tickets for order in orders]
        CONSOLE.print(
            f"[green]{statuses.count(Status.Finished)} of {ORDERS} orders Finished in {time.monotonic() - began:.1f} s "
            f"and {lives} lives; "
            f"{attempts} attempts were lost with a process and made again; every order counts {set(tickets)} ticket."
        )
        assert statuses.count(Status.Finished) == ORDERS
        assert set(tickets) == {1}
    finally:
        runner.close()


def ended(runner: Runner) -> int:
    """How many orders have ended, by the store's index."""
    return sum(1 for _ in runner.list(DemoOrder, status=Status.Finished))


# -- over HTTP ---------------------------------------------------------------------------------------------------------

STEPS_OF_ORDERS = {
    "cart": EVENTS[:2],
    "kitchen": EVENTS[:4],
    "door": [*EVENTS[:4], *EVENTS[5:]],
}
"""Three orders that stop at different places: in the cart, in the kitchen, at the door with the bill unpaid."""


class Server:
    """The shop behind HTTP, in a process of its own."""

    def __init__(self, store: Path, *, port: int = 0) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "runner.cli", "serve", "examples/demo_orders.py", "--port", str(self.port)]
        command += ["--store", f"sqlite:///{store}", "--log-level", "warning"]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until it answers."""
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            try:
                with urlopen(f"{self.url}/readyz", timeout=1):
                    return
            except OSError:
                assert self.process.poll() is None, f"the server ended with exit code {self.process.returncode}"
                time.sleep(0.05)
        raise TimeoutError(f"no answer at {self.url}")

    def post(self, path: str, body: object = None, *, key: str | None = None) -> Any:
        """POST JSON and give the answer."""
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        request = Request(f"{self.url}{path}", json.dumps(body).encode(), headers, method="POST")
        with urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)

    def get(self, path: str) -> Any:
        """GET JSON."""
        with urlopen(f"{self.url}{path}", timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)

    def feed(self, name: str, events: list[dict[str, Any]]) -> None:
        """Drive an order as a customer with curl would, each event with a key of its own."""
        for number, line in enumerate(events):
            path = f"/workflows/DemoOrder/{name}/events/{line['event']}"
            self.post(path, line.get("input"), key=f"{name}-{number}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, and wait until it has ended."""
        self.process.send_signal(how)
        self.process.wait(timeout=PATIENCE_SECONDS)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def served(folder: Path) -> None:
    """Drive orders over HTTP; kill the server in the middle."""
    CONSOLE.rule("[bold]3. The same shop over HTTP")
    store = folder / "shop.db"
    server = Server(store, port=int(os.environ.get("DEMO_PORT", "0")))
    try:
        for name, events in STEPS_OF_ORDERS.items():
            server.post(f"/workflows/DemoOrder?id={name}", {})
            server.feed(name, events)
        server.post("/workflows/DemoOrder?id=whole", {})
        server.feed("whole", EVENTS[:5])
        server.stop(signal.SIGKILL)
        CONSOLE.print("[red]The server was killed with four orders under way, and is started again on the same port.")
        server = Server(store, port=server.port)
        server.feed("whole", EVENTS)  # what has been handled already only gives its answer again
        whole = server.get("/workflows/DemoOrder/whole")
        CONSOLE.print(f"[green]DemoOrder/whole is {whole['status']}, its output {json.dumps(whole['output'])}")
        assert whole["status"] == "Finished"
        for name in STEPS_OF_ORDERS:
            order = server.get(f"/workflows/DemoOrder/{name}")
            awaited = ", ".join(sorted({one["event"] for one in order["awaits"]}))
            CONSOLE.print(f"DemoOrder/{name} is {order['status']} and awaits: {awaited}")
        if os.environ.get("DEMO_ONCE") != "1":
            play(server, store)
    finally:
        if server.process.poll() is None:
            server.stop()


def play(server: Server, store: Path) -> None:
    """Leave the server running, and say what to try."""
    CONSOLE.rule("[bold]The shop is open")
    url = server.url
    CONSOLE.print(f"It listens at [bold]{url}[/]. In another terminal:\n", soft_wrap=True)
    json_body = "-H 'Content-Type: application/json' -d '{\"name\": \"Diavola\"}'"
    for line in (
        f"curl {url}/workflows/DemoOrder/cart",
        f"curl -X POST {json_body} {url}/workflows/DemoOrder/cart/events/add",
        f"curl -X POST {url}/workflows/DemoOrder/cart/events/submit",
        f"curl -X POST {url}/workflows/DemoOrder/cart/events/cooked      # nobody awaits it: a clear 409",
        f".venv/bin/asyncflow list DemoOrder --url {url}",
        f".venv/bin/asyncflow show DemoOrder/kitchen --url {url}",
        f".venv/bin/asyncflow history DemoOrder/whole --url {url}",
        f"kill -9 {server.process.pid}      # and then, to let it go on where it stood:",
        f".venv/bin/asyncflow serve examples/demo_orders.py --store sqlite:///{store} --port {server.port}",
    ):
        CONSOLE.print(f"  {line}", soft_wrap=True, markup=False)
    CONSOLE.print("\nCtrl-C ends the demo and removes its files.")
    try:
        while True:
            server.process.wait()
            time.sleep(1)  # killed: its files stay until Ctrl-C, so that it can be started again
    except KeyboardInterrupt:
        CONSOLE.print("bye")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the rest is cleaning up


def main() -> None:
    """Run the parts that were asked for."""
    wanted = sys.argv[1:] or list(PARTS)
    unknown = set(wanted) - set(PARTS)
    if unknown:
        sys.exit(f"expected parts of {', '.join(PARTS)}, found {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: leave nothing running
    with TemporaryDirectory(prefix="asyncflow-demo-") as name:
        for part in wanted:
            PARTS[part](Path(name))


PARTS = {"order": one_order, "many": many_orders, "server": served}


if __name__ == "__main__":
    main()
