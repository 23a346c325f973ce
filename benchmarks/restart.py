"""A process that begins a step which never ends; `benchmarks.sqlite` kills it and times its successor."""

import sys
import time
from pathlib import Path

from asyncflow import AlreadyExists, S, Section, Step, Workflow
from runner import Runner

MARKS = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("marks")
FOREVER_SECONDS = 200


class Slow(Workflow):
    """One step; it notes when it began."""

    def work(self) -> None:
        with MARKS.open("a") as marks:
            marks.write(f"{time.time()}\n")
        time.sleep(FOREVER_SECONDS)

    def definition(self) -> Section[None]:
        return S(Step(self.work))


if __name__ == "__main__":
    with Runner([Slow], store=f"sqlite:///{sys.argv[1]}") as runner:
        try:
            handle = runner.start(Slow(), id="slow")
        except AlreadyExists:
            handle = runner.get(Slow, "slow")
        handle.result()
