"""Durable steps on Postgres: one workflow at a time and sixteen at once, on a server of the benchmark's own with fsync on."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from benchmarks.sqlite import STEPS, Ten, TenAsync, median
from runner import Runner
from tests.servers.postgres import HOW_TO_GET_IT, PostgresCluster, cluster_of, find_binaries

ROUNDS: Final = 3
_schemas = itertools.count(1)


@contextmanager
def server() -> Iterator[PostgresCluster]:
    """A server that flushes every commit, as one in production does."""
    binaries = find_binaries()
    if binaries is None:
        raise SystemExit(HOW_TO_GET_IT)
    with cluster_of(binaries, fsync="on", full_page_writes="on", synchronous_commit="on") as cluster:
        yield cluster


def steps_per_second(cluster: PostgresCluster, at_once: int, workflows: int, kind: type[Ten | TenAsync] = TenAsync) -> float:
    """Durable steps a second in a schema of its own, with history on."""
    url = f"{cluster.url('postgres')}?schema=bench_{next(_schemas)}"
    with Runner([Ten, TenAsync], store=url, concurrency=max(at_once, 8)) as runner:

        def client(count: int) -> None:
            for _ in range(count):
                assert runner.start(kind()).result(timeout=60) == STEPS

        client(at_once)  # the first bodies, connections and threads
        began = time.perf_counter()
        with ThreadPoolExecutor(at_once) as clients:
            list(clients.map(client, [workflows // at_once] * at_once))
        return workflows // at_once * at_once * STEPS / (time.perf_counter() - began)


def step_figures() -> dict[str, float]:
    """Durable steps a second, medians."""
    with server() as cluster:
        one = [steps_per_second(cluster, 1, 60) for _ in range(ROUNDS)]
        many = [steps_per_second(cluster, 16, 640) for _ in range(ROUNDS)]
        sync = steps_per_second(cluster, 16, 640, Ten)
    return {
        "postgres_steps_per_s_1": round(median(one)),
        "postgres_steps_per_s_16": round(median(many)),
        "postgres_sync_steps_per_s_16": round(sync),
    }
