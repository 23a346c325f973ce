"""Measure everything: progress on stderr, one JSON object on stdout."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from benchmarks import cold_start, engine, firestore, http, postgres, sqlite

PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "engine": engine.loop_figures,
    "resume": engine.resume_figures,
    "import": engine.import_figures,
    "sqlite": sqlite.step_figures,
    "fan-out": sqlite.fan_out_figures,
    "idle": sqlite.idle_figures,
    "start": sqlite.start_figures,
    "restart": sqlite.restart_figures,
    "http": http.http_figures,
    "postgres": postgres.step_figures,
    "firestore": firestore.cost_figures,
    "cold-start": cold_start.cold_start_figures,
}


def main() -> None:
    """Run the parts that were asked for, all without words."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of lines")
    wanted = parser.parse_args()
    unknown = set(wanted.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    figures: dict[str, Any] = {}
    for name in wanted.parts or PARTS:
        began = time.perf_counter()
        found = PARTS[name]()
        print(f"{name}: {found} ({time.perf_counter() - began:.1f} s)", file=sys.stderr, flush=True)
        figures |= found
    versions = {"python": platform.python_version(), "pydantic": version("pydantic"), "apsw": version("apsw")}
    if wanted.json:
        print(json.dumps({**figures, "versions": versions}))
    else:
        for name, value in {**figures, **versions}.items():
            print(f"{name:28} {value}")


if __name__ == "__main__":
    main()
