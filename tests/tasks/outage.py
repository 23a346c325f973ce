"""An outage over many instances, with a queue and a clock that are simulated: how often is each woken until all have ended?

python -m tests.tasks.outage [INSTANCES [DISPATCHES_PER_SECOND]]
"""

import sys
import time
from collections import Counter, deque
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import ClassVar

from runner import Runner
from runner.schedulers.base import Scheduler
from runner.stores.base import Key
from runner.stores.memory import MemoryStore
from runner.work.sweeper import Swept
from tests.runner.clocks import Clock
from tests.tasks.workflows import DAY, Far

CRON: timedelta = timedelta(minutes=1)


class Rated(Scheduler):
    """A queue that takes everything, and delivers so many a second."""

    delivers: ClassVar[bool] = True

    def __init__(self) -> None:
        self.waiting: deque[Key] = deque()
        self.hints: Counter[Key] = Counter()

    def wake(self, key: Key, at: datetime) -> bool:
        self.waiting.append(key)
        self.hints[key] += 1
        return True

    def close(self) -> None:
        self.waiting.clear()


def still_due(self: MemoryStore, workflows: Collection[str], *, now: datetime, limit: int, process: str = "") -> Sequence[Key]:
    """As Firestore does it: nothing moves by being handed out (rule 22)."""
    with self._open():
        return self._by_time(workflows, lambda row: row.wake_at, now)[:limit]


def outage(instances: int, per_second: int, *, sweepers: int = 1) -> tuple[Counter[int], list[Swept], int]:
    """Let so many timers come while nothing is up, then sweep each minute, each time in another of so many processes.

    Returns:
        How many instances were woken how often; what each sweep has done; how many keys were read from the due index.
    """
    clock, queue = Clock(), Rated()
    runner = Runner(
        [Far], store="memory://", clock=clock, history=False, scheduler="cloudtasks://p/l/q", base_url="http://localhost"
    )
    requests = runner.requests
    assert requests is not None
    runner.scheduler, requests.wake = queue, queue.wake
    read = 0
    due = runner.store.due

    def counted(*arguments: object, **others: object) -> Sequence[Key]:
        nonlocal read
        found = due(*arguments, **others)  # type: ignore[arg-type]
        read += len(found)
        return found

    runner.store.due = counted  # type: ignore[method-assign]
    for number in range(instances):
        runner.start(Far(at=clock.now() + DAY), id=f"f{number}")
    queue.waiting.clear()
    queue.hints.clear()
    clock.advance(DAY + timedelta(minutes=1))
    swept: list[Swept] = []
    processes = [runner.sweeper() for _ in range(sweepers)]
    while not swept or swept[-1].woken or swept[-1].waiting:
        swept.append(processes[len(swept) % sweepers].sweep())
        for _ in range(int(CRON.total_seconds())):
            for _ in range(min(per_second, len(queue.waiting))):
                requests.run(queue.waiting.popleft())
            clock.advance(timedelta(seconds=1))
    woken = Counter(queue.hints[Key("Far", f"f{number}")] for number in range(instances))
    runner.close()
    return woken, swept, read


def main() -> None:
    instances = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    per_second = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    MemoryStore.due = still_due  # type: ignore[method-assign]
    for sweepers in (1, 3):
        began = time.perf_counter()
        woken, swept, read = outage(instances, per_second, sweepers=sweepers)
        seconds = time.perf_counter() - began
        print(
            f"{sweepers} process(es): woken {dict(sorted(woken.items()))} times, {len(swept)} sweeps, {read:,} keys read, "
            f"{seconds:.0f} s"
        )


if __name__ == "__main__":
    main()
