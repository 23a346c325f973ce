"""Runs what asyncflow decides: `Runner` and `Handle`."""

from runner.handle import Handle
from runner.runner import Runner

__all__ = ["Handle", "Runner"]
