"""Attempts in flight, one by one: each is answered for exactly once, however it ends."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from asyncflow.instance import Message
from asyncflow.leases import Run
from asyncflow.workflow import Context
from runner.work.execution import Execution

NOW = datetime(2024, 2, 28, tzinfo=UTC)
Ends = list[tuple[str, Message | None]]


def run_of(action: Callable[[], Any], *, idempotent: bool = True, timeout: timedelta = timedelta(minutes=1)) -> Run:
    context = Context(
        id="o-1",
        workflow="Order",
        thread="main",
        step="step",
        attempt=1,
        now=NOW,
        caller=None,
        idempotency_key="k",
    )
    nothing = cast("Any", None)
    return Run("t", "main", "step", "step", False, 1, timeout, action, (), context, nothing, nothing, idempotent)


def execution_of(ends: Ends) -> Execution:
    return Execution(
        asyncio.get_running_loop(),
        places=1,
        now=lambda: NOW,
        ended=lambda token, message: ends.append((token, message)),
        thread_back=lambda: None,
        watch_copies=False,
    )


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("turns", [0, 1, 3])
@pytest.mark.parametrize("idempotent", [True, False])
def test_an_async_attempt_that_is_stopped_is_answered_for_whenever_that_is(turns: int, idempotent: bool) -> None:
    """Also before its first turn of the loop, when nothing of it has run."""

    async def main() -> Ends:
        ends: Ends = []
        execution = execution_of(ends)
        execution.begin(run_of(for_ever, idempotent=idempotent))
        for _ in range(turns):
            await asyncio.sleep(0)
        assert execution.running == 1
        execution.stop_all()
        for _ in range(5):
            await asyncio.sleep(0)
        assert execution.running == 0
        execution.close()
        return ends

    ((token, message),) = asyncio.run(main())
    assert token == "t"
    assert (message is None) == idempotent
    assert message is None or message.lost


def test_an_attempt_that_ends_as_its_time_is_over_counts_once() -> None:
    """A thread may be done, and its time be over, before the loop hears of either: then no thread is missed for ever."""

    async def main() -> tuple[Ends, int]:
        ends: Ends = []
        execution = execution_of(ends)
        run = run_of(lambda: None)
        execution.begin(run)
        while not execution._threads._ends:
            pass  # the loop stands still while the thread ends
        execution._time_out(run)
        for _ in range(5):
            await asyncio.sleep(0)
        execution.close()
        return ends, execution.zombies

    ends, zombies = asyncio.run(main())
    assert len(ends) == 1
    assert zombies == 0
