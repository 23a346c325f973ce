"""Simulates as many seeds as you like: `make sim SEEDS=100000 FIRST=1000`."""

import argparse
import sys
import time

from tests.simulation.seeds import run_seed
from tests.simulation.world import START, Violation


def main() -> int:
    """Run the seeds one after the other; 0 when no law was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5_000, help="how many (default: 5000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them; the others follow it")
    chosen = parser.parse_args()
    began, saves, simulated = time.monotonic(), 0, 0.0
    for done, seed in enumerate(range(chosen.first, chosen.first + chosen.seeds), 1):
        try:
            world = run_seed(seed)
        except Violation as violation:
            print(f"\n{violation}", flush=True)
            return 1
        saves += len([line for line in world.trace if line.endswith(": saved")])
        simulated += (world.now - START).total_seconds()
        if sys.stderr.isatty():
            print(f"\r{done} of {chosen.seeds} seeds ", end="", file=sys.stderr, flush=True)
    seconds = time.monotonic() - began
    print(
        f"{chosen.seeds} seeds from {chosen.first}, {saves} saves, {simulated / 3600:.0f} simulated hours "
        f"in {seconds:.0f} s: no law was broken"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
