"""One simulated run from a seed: chaos for a while, then calm, in which everything must come to its end."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from random import Random
from typing import Final

from pydantic_core import from_json

from asyncflow import Status
from asyncflow.codec import decode
from asyncflow.definition import Definition
from runner.stores.base import Key
from runner.work import deliver as delivering
from runner.work.activity import Plan
from tests.simulation.processes import Client, SimulatedWorker
from tests.simulation.workflows import EITHER, EVENTS, ONCE, Job
from tests.simulation.world import Faults, Violation, World

STEPS: Final = (100, 400)
"""How many things happen before the calm."""
CALM_STEPS: Final = 6_000
"""How many may happen in the calm: some ten times what it takes; only a run that is stuck needs more."""
TRACE_LINES: Final = 60
"""How much of what happened a failure shows."""


class Simulation:
    """Some workers, some clients, one store; everything drawn from *seed*."""

    def __init__(self, seed: int, *, open_world: Callable[[Random, Faults], World] = World) -> None:
        self._dice = dice = Random(seed)
        self.world = open_world(dice, Faults.drawn(dice))
        definition = Definition.of(Job)
        plan = Plan(lease=timedelta(seconds=dice.choice((5, 20, 100))), history=dice.random() < 0.5)
        self._workers = [
            SimulatedWorker(self.world, definition, number, plan, places=dice.randint(1, 4)) for number in range(dice.randint(1, 3))
        ]
        self._clients = [Client(self.world, definition, f"j{number}", self._others, plan) for number in range(dice.randint(1, 3))]
        self._state = definition.codec.dump(Job())
        self._ends_early = dice.random() < 0.2
        """Whether somebody may cancel or kill."""
        self._stopped: set[Key] = set()

    def run(self) -> None:
        """Go through it all.

        Raises:
            Violation: a law was broken, or something is stuck.
        """
        for _ in range(self._dice.randint(*STEPS)):
            self._something()
        self.world.calm = True
        self.world.say("all is calm")
        for worker in self._workers:
            worker.stalled_until = self.world.now
        for _ in range(CALM_STEPS):
            if self._ended():
                break
            self._something_calm()
        else:
            raise Violation(f"stuck: {self._shown()}")
        self._settle()
        for client in self._clients:
            self._check_end(client)

    # -- chaos ---------------------------------------------------------------------------------------------------------

    def _something(self) -> None:
        if self._dice.random() < 0.15:
            client = self._dice.choice(self._clients)
            if client.started or self._dice.random() < 0.5:
                self._use(client)
            else:
                client.start(self._state)
        else:
            self._others()

    def _use(self, client: Client) -> None:
        if not client.started:
            return
        chance = self._dice.random()
        if chance < 0.85:
            client.send(self._dice.choice(EVENTS))
        elif chance < 0.98:
            client.operate(self._dice.choice(("pause", "resume", "resume")))
        elif self._ends_early:
            self._stopped.add(client.key)
            client.operate(self._dice.choice(("cancel", "cancel", "kill")))

    def _others(self) -> None:
        """Let a worker do something, or the clock move, or something go wrong."""
        world, worker = self.world, self._dice.choice(self._workers)
        if world.happens(world.faults.crash):
            worker.crash()
            worker.rise()
        elif world.happens(world.faults.stall):
            worker.stall(self._dice.uniform(1, 300))
        elif self._dice.random() < 0.02:
            worker.wake(self._dice.choice(self._clients).key)
        elif self._dice.random() < 0.02:
            worker.recover()
        elif self._dice.random() < 0.05:
            world.advance(self._dice.choice((0.5, 3, 20)))
        else:
            self._choose(worker)

    def _choose(self, worker: SimulatedWorker) -> bool:
        choices = list(worker.choices())
        if choices:
            self._dice.choice(choices)()
        elif not any(list(other.choices()) for other in self._workers):
            return self._wait()
        return True

    def _wait(self) -> bool:
        """Nothing can happen before the next instant: go there."""
        instants = [at for worker in self._workers if (at := worker.next_instant()) is not None]
        if instants:
            self.world.now = max(self.world.now, min(instants))
        return bool(instants)

    # -- calm ----------------------------------------------------------------------------------------------------------

    def _something_calm(self) -> None:
        for client in self._clients:
            if not client.started:
                client.start(self._state)
        if self._dice.random() < 0.05:
            client = self._dice.choice(self._clients)
            if self._status(client.key) is Status.Paused:
                client.operate("resume")
            for event in ("note", "later"):
                client.send(event)
        self._choose(self._dice.choice(self._workers))

    def _settle(self) -> None:
        """Let late results come, and be dropped."""
        for _ in range(CALM_STEPS):
            choices = [do for worker in self._workers for do in worker.choices()]
            if not choices:
                break
            self._dice.choice(choices)()

    def _status(self, key: Key) -> Status | None:
        instance = self.world.last.get(key)
        return None if instance is None else instance.status

    def _ended(self) -> bool:
        statuses = [self._status(client.key) for client in self._clients]
        return all(status is not None and status.ended for status in statuses)

    def _shown(self) -> dict[str, object]:
        return {
            client.key.id: instance
            and {thread.id: (thread.status.value, thread.position, thread.lease) for thread in instance.threads.values()}
            for client in self._clients
            for instance in [self.world.last.get(client.key)]
        }

    # -- the end -------------------------------------------------------------------------------------------------------

    def _check_end(self, client: Client) -> None:
        """Everything once; nothing acknowledged lost; nothing of the ended changed."""
        stored = self.world.open_store().get(*client.key)
        if stored is None:
            raise Violation(f"{client.key.id} is gone")
        if (stored.record.document, stored.record.state) != self.world.texts[client.key]:
            raise Violation(f"{client.key.id} is not what was saved last")
        instance = decode(stored.record.document, stored.record.state)
        state = from_json(instance.state)
        counts: dict[str, int] = state["counts"]
        counts |= {f"part {part['name']}": part["done"] for part in state["parts"]}
        for fault in self._faults_of(client, instance.status, counts):
            raise Violation(f"{client.key.id}: {fault}; it has counted {counts}")

    def _faults_of(self, client: Client, status: Status, counts: dict[str, int]) -> Iterator[str]:
        for name, times in counts.items():
            if times > 1:
                yield f"{name} happened {times} times"
        for event, answer in client.answers.items():
            handled = not isinstance(answer, Exception)
            if handled != (counts.get(event, 0) == 1):
                yield f"{event} was answered with {answer}"
        if client.key in self._stopped:
            return
        if status is not Status.Finished:
            yield f"it is {status}"
        for name in ONCE:
            if counts.get(name) != 1:
                yield f"{name} never happened"
        for names in EITHER:
            if sum(counts.get(name, 0) for name in names) != 1:
                yield f"of {sorted(names)} not one happened"
        for part in ("p0", "p1", "p2"):
            if counts[f"part {part}"] != 1:
                yield f"{part} was not done"


@contextmanager
def _without_waiting() -> Iterator[None]:
    """The one real clock in the code under test is a short rest of a sender in doubt."""
    before = delivering.DOUBT_RETRY_SECONDS
    delivering.DOUBT_RETRY_SECONDS = 0  # type: ignore[misc]
    try:
        yield
    finally:
        delivering.DOUBT_RETRY_SECONDS = before  # type: ignore[misc]


def run_seed(seed: int, *, open_world: Callable[[Random, Faults], World] = World) -> World:
    """Run the simulation of *seed*; give its world.

    Raises:
        Violation: a law was broken; it names the seed, and shows what happened last.
    """
    random.seed(seed)  # a sender draws the jitter of retries from there
    simulation = Simulation(seed, open_world=open_world)
    with _without_waiting():
        try:
            simulation.run()
        except AssertionError as fault:
            shown = "\n".join(simulation.world.trace[-TRACE_LINES:])
            raise Violation(f"seed {seed}: {fault}\n{shown}") from fault
    return simulation.world
