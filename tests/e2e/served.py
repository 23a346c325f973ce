"""The process of tests/tasks/served.py under a clock that is ahead, so that leases of a process before it have lapsed.

It is forked from one that has imported everything, since that is most of what such a short life would do.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing.connection import Connection

# Imported for those that are forked: the libraries, and no connection.
from google.cloud import tasks_v2  # noqa: F401

from runner import Runner
from runner.stores import firestore  # noqa: F401
from tests.tasks import served


@dataclass(frozen=True)
class Ahead:
    """This host's time, and some more."""

    by: timedelta

    def now(self) -> datetime:
        return datetime.now(UTC) + self.by


def live(output: Connection, environment: Mapping[str, str], ahead: timedelta, *arguments: str) -> None:
    """Serve until killed or told to end; the address is the first line in *output*."""
    os.environ.update(environment)
    vars(served)["Runner"] = partial(Runner, clock=Ahead(ahead))
    sys.stdout = os.fdopen(os.dup(output.fileno()), "w", encoding="utf-8")
    served.main(*arguments)
