"""The threads that requests run on: every end is told once, to whoever still waits."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from runner.http.threads import Threads


@pytest.fixture
def threads() -> Threads:
    return Threads(2)


def test_gives_what_the_work_gives_and_raises_what_it_raises(threads: Threads) -> None:
    def fail() -> None:
        raise LookupError("nothing there")

    async def main() -> None:
        assert await threads.run(lambda: 7) == 7
        with pytest.raises(LookupError, match="nothing there"):
            await threads.run(fail)
        assert await threads.run(threading.get_ident) != threading.get_ident()
        threads.close()

    asyncio.run(main())


def test_no_more_threads_than_said_and_each_work_has_its_turn(threads: Threads) -> None:
    used: set[int] = set()
    both = threading.Barrier(2)

    def meet(number: int) -> Callable[[], int]:
        def work() -> int:
            both.wait(30)  # breaks unless two threads are at work
            used.add(threading.get_ident())
            return number

        return work

    async def main() -> None:
        assert await asyncio.gather(*(threads.run(meet(number)) for number in range(40))) == list(range(40))
        threads.close()

    asyncio.run(main())
    assert len(used) == 2


def test_a_thread_that_is_free_is_used_again(threads: Threads) -> None:
    async def main() -> set[int]:
        used = {await threads.run(threading.get_ident) for _ in range(20)}
        threads.close()
        return used

    assert len(asyncio.run(main())) == 1


def test_ends_that_come_together_wake_the_loop_once(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        await threads.run(lambda: None)
        wakes: list[object] = []
        wake = loop.call_soon_threadsafe

        def count(*given: Any) -> object:
            wakes.append(given)
            return wake(*given)

        monkeypatch.setattr(loop, "call_soon_threadsafe", count)
        works = [asyncio.ensure_future(threads.run(lambda: None)) for _ in range(10)]
        await asyncio.sleep(0)  # they have begun
        last = threading.Event()
        after = asyncio.ensure_future(threads.run(last.set))
        await asyncio.sleep(0)
        last.wait(30)  # the loop is held up until all but two at most have ended
        await asyncio.gather(*works, after)
        threads.close()
        return len(wakes)

    assert asyncio.run(main()) <= 3


def test_an_end_nobody_waits_for_is_dropped(threads: Threads) -> None:
    go = threading.Event()

    async def main() -> None:
        waiting = asyncio.ensure_future(threads.run(lambda: go.wait(30)))
        await asyncio.sleep(0)
        waiting.cancel()
        go.set()
        assert await threads.run(lambda: 1) == 1
        assert waiting.cancelled()
        threads.close()

    asyncio.run(main())


def test_threads_end_when_it_is_closed(threads: Threads) -> None:
    async def main() -> threading.Thread:
        used = await threads.run(threading.current_thread)
        threads.close()
        return used

    used = asyncio.run(main())
    used.join(30)
    assert not used.is_alive()
