"""Kills processes for as long as you like: `make crash KILLS=5000 SEED=1`.

Each round works on a database of its own, by a seed that is printed with what it came to. A round that finds a fault
stops it all and leaves its folder where it is.
"""

import argparse
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from tests.crash.siege import Figures, besiege, besiege_two, stop_beyond_the_lease, terminate_under_load

KILLS_A_ROUND: Final = 50
STOPS_A_ROUND: Final = 8
"""The other kinds of rounds take longer for each."""


@dataclass
class Total:
    """What all rounds came to."""

    kills: int = 0
    at_points: int = 0
    stops: int = 0
    terms: int = 0
    rounds: int = 0
    instances: int = 0
    events: int = 0
    steps: int = 0
    attempts: int = 0
    repeated: int = 0
    waits: list[float] = field(default_factory=list)
    longest_drain: float = 0

    def add(self, figures: Figures) -> None:
        """Add a round."""
        account = figures.account
        self.rounds += 1
        self.kills += figures.kills
        self.at_points += figures.at_points
        self.instances += account.instances
        self.events += account.events
        self.steps += account.steps
        self.attempts += account.attempts
        self.repeated += account.repeated
        self.waits += account.waits

    def summary(self, seconds: float) -> str:
        """Say it in a few lines."""
        waits = sorted(self.waits) or [0.0]
        p99 = waits[len(waits) * 99 // 100]
        return (
            f"{self.kills} kills ({self.at_points} at a named point), {self.stops} stops beyond the lease, "
            f"{self.terms} ends by SIGTERM, in {self.rounds} rounds and {seconds:.0f} s\n"
            f"{self.instances} instances at their ends, {self.events} acknowledged events, {self.steps} steps in "
            f"{self.attempts} attempts ({self.repeated} of them again)\n"
            f"after a restart what was cut off went on within {waits[len(waits) // 2]:.3f} s (half of it), "
            f"{p99:.3f} s (99 %), {waits[-1]:.3f} s (all {len(waits)})\n"
            f"the longest end by SIGTERM took {self.longest_drain:.2f} s\n"
            "0 acknowledged starts or events lost, 0 transitions twice, 0 instances stuck"
        )


def play(number: int, folder: Path, seed: int, total: Total, kills: int, show: bool) -> None:
    """Play one round: mostly kills of one process, also of one of two, stops and terminations."""
    before = total.kills
    done = 0

    def killed() -> None:
        nonlocal done
        done += 1
        if show:
            print(f"\r{before + done} kills, round {number}, seed {seed}   ", end="", file=sys.stderr, flush=True)

    match number % 8:
        case 3 | 7:
            figures = besiege_two(folder, seed, kills, killed)
        case 5:
            figures = stop_beyond_the_lease(folder, seed, STOPS_A_ROUND)
            total.stops += STOPS_A_ROUND
        case 6:
            figures, longest = terminate_under_load(folder, seed, STOPS_A_ROUND)
            total.terms += STOPS_A_ROUND
            total.longest_drain = max(total.longest_drain, longest)
        case _:
            figures = besiege(folder, seed, kills, killed)
    total.add(figures)
    if figures.account.faults:
        raise AssertionError("\n".join(figures.account.faults))


def main() -> int:
    """Go through rounds until there were enough kills; 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=2_000, help="how many (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each round has the next one")
    chosen = parser.parse_args()
    total, began, number = Total(), time.monotonic(), 0
    while total.kills < chosen.kills:
        seed = chosen.seed + number
        folder = Path(mkdtemp(prefix=f"asyncflow-crash-{seed}-"))
        try:
            kills = min(KILLS_A_ROUND, chosen.kills - total.kills)
            play(number, folder, seed, total, kills, sys.stderr.isatty())
        except AssertionError as fault:
            print(f"\nround {number}, seed {seed} found a fault; what it left is in {folder}\n{fault}", flush=True)
            return 1
        shutil.rmtree(folder)
        print(f"round {number}, seed {seed}: {total.kills} kills so far, nothing lost, nothing twice", flush=True)
        number += 1
    print(total.summary(time.monotonic() - began))
    return 0


if __name__ == "__main__":
    sys.exit(main())
