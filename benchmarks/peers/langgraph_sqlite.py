"""LangGraph with its SQLite checkpointer: ten nodes in a row. Runs in an environment of its own."""

import json
import sqlite3
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

STEPS = 10


class State(TypedDict):
    n: int


def node(state: State) -> State:
    return {"n": state["n"] + 1}


def main() -> None:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        connection = sqlite3.connect(f"{folder}/langgraph.sqlite", check_same_thread=False)
        graph = StateGraph(State)
        names = [f"step{number}" for number in range(STEPS)]
        for name in names:
            graph.add_node(name, node)
        for before, after in zip([START, *names], [*names, END], strict=True):
            graph.add_edge(before, after)
        app = graph.compile(checkpointer=SqliteSaver(connection))
        app.invoke({"n": 0}, {"configurable": {"thread_id": "warm"}})
        began = time.perf_counter()
        workflows = 40
        for number in range(workflows):
            assert app.invoke({"n": 0}, {"configurable": {"thread_id": str(number)}})["n"] == STEPS
        one = workflows * STEPS / (time.perf_counter() - began)
    # Its saver has one connection behind one lock: many at once are no faster.
    print(json.dumps({"version": version("langgraph"), "one": one, "many": one}))


main()
