"""The command `asyncflow`: the group of its commands, each imported when it is called."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import click

COMMANDS: Final = {
    "Run": {"dev": "serving", "serve": "serving", "worker": "serving"},
    "Instances": {
        "start": "instances",
        "send": "instances",
        "query": "instances",
        "list": "instances",
        "show": "instances",
        "history": "instances",
    },
    "Operate": {
        "pause": "verbs",
        "resume": "verbs",
        "retry": "verbs",
        "skip": "verbs",
        "cancel": "verbs",
        "kill": "verbs",
        "delete": "verbs",
    },
    "Know": {"docs": "describing", "settings": "describing", "doctor": "doctor", "cost": "cost"},
}
"""The commands in the order of help: their module in runner/commands."""

_MODULES: Final = {name: module for group in COMMANDS.values() for name, module in group.items()}


class Group(click.Group):
    """Imports a command when it is called, and lists all of them in groups."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Give their names, in the order of help."""
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Give the command of that name."""
        module = _MODULES.get(cmd_name)
        if module is None:
            return None
        found = getattr(importlib.import_module(f"runner.commands.{module}"), "list_" if cmd_name == "list" else cmd_name)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, group by group."""
        for title, names in COMMANDS.items():
            with formatter.section(title):
                commands = [(name, self.get_command(ctx, name)) for name in names]
                width = formatter.width - 12
                formatter.write_dl([(name, one.get_short_help_str(width)) for name, one in commands if one is not None])


def _version() -> str:
    try:
        return version("asyncflow-engine")
    except PackageNotFoundError:  # run from its sources
        return "unknown"


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), prog_name="asyncflow")
def cli() -> None:
    """Durable workflows: run them, drive their instances, look at them.

    Commands find the code by --app (a module, module:Class or a file), and the instances on a store (--store) or behind
    a server (--url). Each of these is also a variable (ASYNCFLOW_APP, ASYNCFLOW_STORE, ASYNCFLOW_URL) and a key of
    [tool.asyncflow] in pyproject.toml; `asyncflow settings` shows them all.

    An instance is written PizzaOrder/o-1. Input is JSON; @FILE reads it from a file, - from standard input. With --json
    all output is JSON.

    Exit codes: 0 done, 1 refused or ended badly, 2 wrong use or settings, 3 not found, 4 pending, 5 store or server
    unreachable.
    """


def main() -> None:
    """Run the command that was typed."""
    cli(prog_name="asyncflow")


if __name__ == "__main__":
    main()
