"""What all commands share: their options, the way to the instances, and how errors become exit codes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from asyncflow import AsyncflowError, Workflow
from asyncflow.errors import Malformed
from runner.commands.access import Access, Descriptions
from runner.commands.output import Output, exit_code
from runner.settings import Configuration, load_settings
from runner.target import find_workflows, shadow_in

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])


class AppMissing(Malformed):
    """A command needs the code, and nothing says where it is."""


class Session:
    """One run of one command: its settings and where it prints."""

    def __init__(self, flags: dict[str, Any], *, as_json: bool) -> None:
        self.output = Output(as_json=as_json)
        self._flags = flags
        self._configuration: Configuration | None = None

    @property
    def configuration(self) -> Configuration:
        """The settings, read at the first use.

        Raises:
            SettingsError: All that is wrong with them.
        """
        if self._configuration is None:
            self._configuration = load_settings(self._flags)
            for remark in self._configuration.remarks:
                self.output.warn(remark)
        return self._configuration

    def flags_as_given(self) -> list[str]:
        """The flags that are settings, to be handed to another process."""
        given = [(name.replace("_", "-"), value) for name, value in self._flags.items() if value is not None]
        return [part for name, value in given for part in (f"--{name}", str(value))]

    def workflows(self, target: str | None = None) -> list[type[Workflow]]:
        """Import the code.

        Args:
            target: Where it is; default: the setting `app`.

        Raises:
            AppMissing: Nothing says where it is.
            TargetError: It is not there, or cannot be imported.
            DefinitionError: It cannot work.
        """
        configuration = self.configuration
        target = target or configuration.settings.app
        if target is None:
            raise AppMissing(
                "this needs the code of the workflows: say where it is by --app (a module, module:Class or a file), "
                "ASYNCFLOW_APP, or app in [tool.asyncflow] of pyproject.toml; or name a server by --url"
            )
        # The current folder has been looked at when the command began.
        shadow = shadow_in(configuration.folders[1:])
        if shadow is not None:
            self.output.warn(shadow)
        return find_workflows(target, configuration.folders)

    @contextmanager
    def access(self, *, code: bool = True, makes: bool = False) -> Iterator[Access]:
        """Give the way to the instances: a server where one is named, else the store.

        Args:
            code: False: the code is used if it is there, but can be done without.
            makes: A store that is not there yet is as good as any.
        """
        settings = self.configuration.settings
        access: Access
        if settings.url is not None:
            from runner.client import Client  # noqa: PLC0415 - only what is asked for

            access = Client(settings.url, caller=settings.caller)
        else:
            from runner.commands.on_store import StoreAccess  # noqa: PLC0415 - only what is asked for

            if not self._is_there(settings.store, makes=makes):
                settings = settings.model_copy(update={"store": "memory://"})  # as empty, and no file is left behind
            workflows = self.workflows() if code else self._workflows_if_there()
            access = StoreAccess(settings, workflows, caller=settings.caller)
        try:
            yield access
        finally:
            access.close()

    @contextmanager
    def descriptions(self) -> Iterator[Descriptions]:
        """Give what knows the workflows: a server where one is named, else the code; no store is opened."""
        if self.configuration.settings.url is not None:
            with self.access() as access:
                yield access
        else:
            from asyncflow.definition import Definition  # noqa: PLC0415 - only what is asked for
            from runner.commands.on_store import Code  # noqa: PLC0415 - only what is asked for

            found = [Definition.of(one) for one in self.workflows()]
            yield Code({one.name: one for one in found})

    def _is_there(self, store: str, *, makes: bool) -> bool:
        path = store.removeprefix("sqlite:///")
        if store.startswith("memory:"):
            self.output.warn("a store in memory ends with this command, and all that is in it")
        elif path != store and not makes and not Path(path).exists() and Path(path).absolute().parent.is_dir():
            self.output.warn(f"there is no store at {Path(path).absolute()}: say by --store where it is")
            return False
        return True

    def _workflows_if_there(self) -> list[type[Workflow]]:
        try:
            return self.workflows()
        except AppMissing:
            return []
        except AsyncflowError as error:
            self.output.warn(f"going on without the code, which cannot be used: {str(error).splitlines()[0]}")
            return []


class Command(click.Command):
    """A command whose errors are printed, and become exit codes; its help ends with *examples*."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read what was typed; a negative number is taken for an option, so its refusal says how to write it."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if re.fullmatch(r"-[\d.]+", error.option_name):
                hint = f"A negative number goes behind two strokes and the options: … -- {error.option_name}"
                raise click.UsageError(f"{error.format_message()} {hint}", ctx) from error
            raise

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, each on a line of its own."""
        super().format_epilog(ctx, formatter)
        if self._examples:
            with formatter.section("Examples"):
                for one in self._examples:
                    formatter.write(f"  {one}\n")

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        output = Output(as_json=bool(ctx.params.get("as_json")))
        shadow = shadow_in([Path.cwd()])
        if shadow is not None:
            output.warn(shadow)
        try:
            return super().invoke(ctx)
        except (AsyncflowError, TimeoutError) as error:
            output.error(error)
            ctx.exit(exit_code(error))


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in the order in which help lists them."""

    def decorate(function: F) -> F:
        for one in reversed(decorators):
            function = one(function)
        return function

    return decorate


_APP = click.option("--app", metavar="TARGET", help="Where the workflows are: a module, module:Class or a file.")
_STORE = click.option("--store", metavar="URL", help="The store, as sqlite:///asyncflow.db.")
_URL = click.option("--url", metavar="URL", help="The server to talk to, instead of the store.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_CALLER = click.option("--caller", metavar="NAME", help="Who is said to be calling.")

reaching = options(_URL, _STORE, _APP, _JSON)
"""For commands that read instances."""
changing = options(_URL, _STORE, _APP, _CALLER, _JSON)
"""For commands that change them."""
serving = options(_STORE, _APP, _JSON)
"""For commands that run the workflows themselves."""
setting = options(_URL, _STORE, _APP, _CALLER, _JSON)

SETTINGS = (
    "url",
    "store",
    "app",
    "caller",
    "host",
    "port",
    "concurrency",
    "retention",
    "history",
    "lease",
    "scheduler",
    "base_url",
    "log_level",
)
"""Options of these names are settings: they go before the environment and the file."""


def with_session(function: Callable[Concatenate[Session, P], None]) -> Callable[..., None]:
    """Give a command its session, made from those of its options that are settings."""

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> None:
        as_json = bool(kwargs.pop("as_json", False))
        flags = {name: kwargs.pop(name) for name in SETTINGS if name in kwargs}
        function(Session(flags, as_json=as_json), *args, **kwargs)

    return called
