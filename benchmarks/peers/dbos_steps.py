"""DBOS: ten steps a workflow, one at a time and 16 at once. Runs in an environment of its own.

    python dbos_steps.py [URL]

On the Postgres database of that URL, which it makes; without one on SQLite.
"""

import json
import logging
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from dbos import DBOS, DBOSConfig

STEPS = 10


@DBOS.step()
def step(n: int) -> int:
    return n + 1


@DBOS.workflow()
def ten() -> int:
    n = 0
    for _ in range(STEPS):
        n = step(n)
    return n


def rate(at_once: int, workflows: int) -> float:
    began = time.perf_counter()
    if at_once == 1:
        for _ in range(workflows):
            assert ten() == STEPS
    else:
        with ThreadPoolExecutor(at_once) as pool:
            assert all(n == STEPS for n in pool.map(lambda _: ten(), range(workflows)))
    return workflows * STEPS / (time.perf_counter() - began)


def main() -> None:
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        url = sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/dbos.sqlite"
        config: DBOSConfig = {"name": "bench", "system_database_url": url, "log_level": "CRITICAL"}
        DBOS(config=config)
        DBOS.launch()
        rate(1, 3)
        one, many = rate(1, 30), rate(16, 48)
        DBOS.destroy()
    print(json.dumps({"version": version("dbos"), "one": one, "many": many}))


main()
