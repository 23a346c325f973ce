"""A workflow that writes down what ran, and the words for reading it."""

from typing import Any

from asyncflow import Simulation, Workflow
from tests.scenarios.drivers import Instance


class Traced(Workflow):
    """Keeps a log in its state; `mark` is the usual step and handler of the scenarios."""

    log: list[str] = []

    def mark(self, entry: str) -> None:
        self.log.append(entry)


def trace(run: Instance[Traced] | Simulation[Any]) -> str:
    """Give the log of an instance in one line."""
    return ";".join(run.state.log)
