"""`make demo`: see it die and go on.

    python -m examples.demo           all of it; a server is left running to play with, until Ctrl-C
    python -m examples.demo order     one pizza order, killed in the middle of a step
    python -m examples.demo many      many orders, killed twice
    DEMO_ONCE=1 python -m examples.demo   asks nothing, leaves nothing running, exits 0

Every part runs the workflow in a process of its own, which ends itself with SIGKILL: no handler runs, nothing is flushed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.tree import Tree

from asyncflow import Status
from asyncflow.schema import definition_json
from examples.demo_orders import PATIENCE_SECONDS, DemoOrder, open_runner
from runner import Handle

CONSOLE = Console(highlight=False)
EVENTS = [
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
    CONSOLE.print(
        f"[green]It went on where it stood and ended with exit code {code} after {time.monotonic() - began:.1f} s."
    )
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
                progress.console.print(
                    f"[red]killed ({signal.Signals(-process.returncode).name}) with {ended(runner)} at the door"
                )
        orders = list(runner.list(DemoOrder))
        statuses = [order.status for order in orders]
        attempts = sum(1 for order in orders for entry in order.history() if entry["kind"] == "failed")
        tickets = [order.state.tickets for order in orders]
        CONSOLE.print(
            f"[green]{statuses.count(Status.Finished)} of {ORDERS} orders Finished in {time.monotonic() - began:.1f} s and {lives} lives; "
            f"{attempts} attempts were lost with a process and made again; every order counts {set(tickets)} ticket."
        )
        assert statuses.count(Status.Finished) == ORDERS
        assert set(tickets) == {1}
    finally:
        runner.close()


def ended(runner: object) -> int:
    """How many orders have ended, by the store's index."""
    return sum(1 for _ in runner.list(DemoOrder, status=Status.Finished))  # type: ignore[attr-defined]


def main() -> None:
    """Run the parts that were asked for."""
    wanted = sys.argv[1:] or ["order", "many", "server"]
    with TemporaryDirectory(prefix="asyncflow-demo-") as name:
        folder = Path(name)
        if "order" in wanted:
            one_order(folder)
        if "many" in wanted:
            many_orders(folder)
    CONSOLE.print(f"[dim](an event is waited for {PATIENCE_SECONDS} s at most; see examples/demo.py)")


if __name__ == "__main__":
    main()
