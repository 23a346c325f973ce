"""Settings: from flags, from the environment (`ASYNCFLOW_…`), from `[tool.asyncflow]` of pyproject.toml, else defaults.

The first of these that says something wins. All problems are reported at once, each with the place it came from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from asyncflow import limits
from asyncflow.errors import Malformed
from runner.durations import parse_duration
from runner.schedulers import check_scheduler, faults
from runner.schedulers.base import REQUEST, Terms
from runner.stores import KNOWN_SCHEMES

CONCURRENCY: Final = 64
"""How many attempts run at once unless told: more than a database pool has, far less than a process has threads."""
PORT: Final = 8080
"""Where `serve` listens unless told: above the ports that need rights, and not Flask's own 5000, which macOS takes."""
REQUEST_MIN: Final = timedelta(seconds=20)
"""A request keeps 10 s for loading and saving; the rest is for steps."""
LEASE_MIN: Final = timedelta(seconds=1)
"""A lease is renewed every third of it; below a second a busy machine would lose leases of living workers."""

PREFIX: Final = "ASYNCFLOW_"
FILE: Final = "pyproject.toml"
TABLE: Final = "tool.asyncflow"

_YES: Final = frozenset({"true", "yes", "on", "1"})
_NO: Final = frozenset({"false", "no", "off", "0"})
_NONE: Final = frozenset({"none", "null"})


# -- values ------------------------------------------------------------------------------------------------------------


def _number(given: object) -> object:
    if isinstance(given, str) and re.fullmatch(r"\s*[+-]?\d{1,18}\s*", given, re.ASCII):
        return int(given)
    if isinstance(given, bool) or not isinstance(given, int):
        raise ValueError(f"expected a whole number, found {given!r}")  # noqa: TRY004 - pydantic collects ValueErrors
    return given


def _concurrency(given: object) -> object:
    number = _number(given)
    if isinstance(number, int) and number < 1:
        raise ValueError(f"expected at least 1, found {number}")
    return number


def _port(given: object) -> object:
    number = _number(given)
    if isinstance(number, int) and not 0 <= number <= 65_535:
        raise ValueError(f"expected a port between 0 (any free one) and 65535, found {number}")
    return number


def _lease(given: object) -> timedelta:
    lease = parse_duration(given)
    if lease < LEASE_MIN:
        raise ValueError(f"expected a lease of at least {LEASE_MIN.total_seconds():g} s, found {given!r}")
    return lease


def _retention(given: object) -> object:
    """None, one duration, or one for each workflow: a table, or `PizzaOrder=7d,Transfer=12h`."""
    if given is None or (isinstance(given, str) and given.strip().lower() in _NONE):
        return None
    if isinstance(given, str) and "=" in given:
        pairs = [part.partition("=") for part in given.split(",")]
        given = {name: length for name, _, length in pairs}
    if isinstance(given, Mapping):
        return {str(name).strip(): parse_duration(length) for name, length in given.items()}
    return parse_duration(given)


def _history(given: object) -> object:
    if given is None or isinstance(given, bool):
        return given
    if isinstance(given, str) and given.strip().lower() in _YES | _NO:
        return given.strip().lower() in _YES
    try:
        return parse_duration(given)
    except ValueError:
        text = f"expected true, false, or how long to keep that of ended instances, as 30d, found {given!r}"
        raise ValueError(text) from None


def _store(given: object) -> object:
    # Never the value: it may hold a password.
    if not isinstance(given, str) or "://" not in given:
        raise ValueError("expected the URL of a store, as sqlite:///asyncflow.db or memory://, found something without a scheme")
    scheme = given.partition("://")[0]
    if scheme not in KNOWN_SCHEMES:
        raise ValueError(f"expected a store of the kind {' or '.join(f'{one}://' for one in KNOWN_SCHEMES)}, found {scheme}://")
    return given


def _url(given: object) -> object:
    try:
        parts = urlsplit(given) if isinstance(given, str) else None
        good = parts is not None and parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"expected the address of a server, as http://localhost:{PORT}, found {shown_url(str(given))!r}")
    return str(given).rstrip("/")


def _base_url(given: object) -> object:
    url = _url(given)
    if isinstance(url, str) and (urlsplit(url).query or urlsplit(url).fragment):
        raise ValueError(f"expected an address without ? and #, found {shown_url(url)!r}")
    return url


def _email(given: object) -> object:
    if not isinstance(given, str) or not re.fullmatch(r"[^@\s]{1,64}@[^@\s]{1,255}", given.strip()):
        raise ValueError(f"expected the e-mail address of a service account, found {given!r}")
    return given.strip()


def _keys(given: object) -> object:
    """One key, or the new one and the old one with a comma. Never the value in an error: it is a secret."""
    parts = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, list | tuple) or not all(isinstance(one, str) for one in parts):
        raise ValueError("expected a key, or the new one and the old one, found something else")
    keys = tuple(one.strip() for one in parts)
    if not 1 <= len(keys) <= 2:
        raise ValueError(f"expected a key, or the new one and the old one, found {len(keys)}")
    return keys


def _request(given: object) -> timedelta:
    length = parse_duration(given)
    if length < REQUEST_MIN:
        raise ValueError(f"expected at least {REQUEST_MIN.total_seconds():g} s, found {given!r}")
    return length


def _level(given: object) -> object:
    return given.strip().lower() if isinstance(given, str) else given


LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]


class Settings(BaseModel):
    """What can be set, each with the default it has where nobody says anything."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    app: str | None = None
    """Where the workflows are: a module, `module:Class` or a file; several with commas."""
    store: Annotated[str, BeforeValidator(_store)] = "sqlite:///asyncflow.db"
    scheduler: Annotated[str, BeforeValidator(check_scheduler)] = "local"
    url: Annotated[str | None, BeforeValidator(_url)] = None
    """The server that commands talk to, instead of the store."""
    host: str = "127.0.0.1"
    port: Annotated[int, BeforeValidator(_port)] = PORT
    concurrency: Annotated[int, BeforeValidator(_concurrency)] = CONCURRENCY
    retention: Annotated[timedelta | dict[str, timedelta] | None, BeforeValidator(_retention)] = None
    history: Annotated[bool | timedelta | None, BeforeValidator(_history)] = None
    """None: as the store is by default."""
    lease: Annotated[timedelta, BeforeValidator(_lease)] = timedelta(seconds=limits.LEASE_SECONDS)
    base_url: Annotated[str | None, BeforeValidator(_base_url)] = None
    """Where a scheduler that delivers over HTTP reaches the app."""
    audience: str | None = None
    """Of its OIDC tokens, where that is not `base_url`."""
    service_account: Annotated[str | None, BeforeValidator(_email)] = None
    """In whose name it delivers."""
    verified_by: Literal["app", "platform"] = "app"
    """Who looks at the signatures of the deliveries' tokens: `platform` where it takes them off, as Cloud Run in front of a
    service that is not public."""
    hmac_keys: Annotated[tuple[str, ...], BeforeValidator(_keys)] = ()
    """What its deliveries are signed with: the new key, and the old one with a comma."""
    request_timeout: Annotated[timedelta, BeforeValidator(_request)] = REQUEST
    """How long a request may take; steps run in one."""
    log_level: Annotated[LogLevel, BeforeValidator(_level)] = "info"
    caller: str | None = None
    """Who is said to send what commands send."""

    def runner_arguments(self) -> dict[str, Any]:
        """What `Runner(…)` takes of them."""
        return {name: getattr(self, name) for name in RUNNER_ARGUMENTS}

    @property
    def terms(self) -> Terms:
        """How a scheduler that delivers reaches the app, and proves itself."""
        return Terms(self.base_url, self.audience, self.service_account, self.hmac_keys, self.request_timeout, self.verified_by)


RUNNER_ARGUMENTS: Final = (
    "store", "scheduler", "concurrency", "retention", "history", "lease", "base_url", "audience", "service_account",
    "hmac_keys", "request_timeout", "verified_by",
)  # fmt: skip
SECRETS: Final = frozenset({"hmac_keys"})
"""Settings that are never shown."""


class SettingsError(Malformed):
    """Settings that cannot be: all `problems` at once, each beginning with the place it came from."""

    problems: list[str]

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


# -- where they come from ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value came from: `flag`, `environment`, `file` or `default`, and the place in words."""

    kind: Literal["flag", "environment", "file", "default"]
    place: str


DEFAULT: Final = Source("default", "default")


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings, where each came from, the folders that targets are looked for in, and remarks for whoever runs this."""

    settings: Settings
    sources: Mapping[str, Source]
    folders: tuple[Path, ...]
    remarks: tuple[str, ...] = ()


@dataclass(slots=True)
class _Found:
    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    file: Path | None = None

    def put(self, name: str, value: Any, source: Source) -> None:
        self.values[name] = value
        self.sources[name] = source


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Configuration:
    """Collect the settings.

    Args:
        flags: What the command line says, by the name of the setting; None says nothing.
        environment: Default: that of this process. An empty variable says nothing.
        folder: Where to look for pyproject.toml, and upward from there; default: the current one.

    Raises:
        SettingsError: All that is wrong, each with where it came from.
    """
    folder = Path.cwd() if folder is None else folder
    found = _Found()
    _read_file(found, folder)
    _read_environment(found, os.environ if environment is None else environment)
    for name, value in (flags or {}).items():
        if value is not None:
            found.put(name, value, Source("flag", f"--{name.replace('_', '-')}"))
    _choose_side(found)
    settings = _validated(found)
    if settings is not None:
        for name, what in faults(settings.scheduler, settings.terms, settings.lease):
            source = found.sources.get(name, DEFAULT)
            found.problems.append(f"{name if source is DEFAULT else source.place}: {what}")
    if found.problems or settings is None:
        raise SettingsError(found.problems)
    folders = (folder,) if found.file is None or found.file.parent == folder else (folder, found.file.parent)
    sources = {name: found.sources.get(name, DEFAULT) for name in Settings.model_fields}
    return Configuration(settings, sources, folders, tuple(found.remarks))


def _choose_side(found: _Found) -> None:
    """Let a store named on the command line win over a server that the surroundings name."""
    store, url = found.sources.get("store"), found.sources.get("url")
    if store is not None and store.kind == "flag" and url is not None:
        if url.kind == "flag":
            found.problems.append("--store, --url: expected one of them, found both: commands talk to a server or to a store")
        else:
            del found.values["url"], found.sources["url"]


def _read_environment(found: _Found, environment: Mapping[str, str]) -> None:
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX) or not text.strip():
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in Settings.model_fields:
            found.put(name, text, Source("environment", variable))
        else:
            # No problem, only a remark: a later release, or something else, may know it.
            found.remarks.append(f"{variable} is no setting{_meant(name, lambda one: PREFIX + one.upper())}")


def _read_file(found: _Found, folder: Path) -> None:
    import tomllib  # noqa: PLC0415 - dear to import, and rarely needed

    for parent in (folder, *folder.parents):
        file = parent / FILE
        try:
            table: Any = tomllib.loads(file.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            found.problems.append(f"{_near(file, folder)}: cannot be read: {error}")
            return
        for part in TABLE.split("."):
            table = table.get(part) if isinstance(table, dict) else None
        if table is not None:
            found.file = file
            _read_table(found, table, file, folder)
            return


def _read_table(found: _Found, table: Any, file: Path, folder: Path) -> None:
    place = f"{_near(file, folder)} [{TABLE}]"
    if not isinstance(table, dict):
        found.problems.append(f"{place}: expected a table, found {type(table).__name__}")
        return
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in Settings.model_fields:
            value = _from_folder(name, value, file.parent, folder)  # noqa: PLW2901 - the same value, seen from here
            found.put(name, value, Source("file", f"{place} {key}"))
        else:
            found.problems.append(f"{place} {key}: is no setting{_meant(name, str)}; there are: {', '.join(Settings.model_fields)}")


def _from_folder(name: str, value: Any, home: Path, folder: Path) -> Any:
    """What a file says of paths holds from its own folder, wherever below it a command is run."""
    if home == folder or not isinstance(value, str):
        return value
    path = value.removeprefix("sqlite:///")
    if name == "store" and path != value and path and not path.startswith(("/", ":")):
        return f"sqlite:///{home / path}"
    if name == "app":
        return ",".join(str(home / one) if _is_path(one) else one for one in (part.strip() for part in value.split(",")))
    return value


def _is_path(target: str) -> bool:
    file = target.partition(":")[0]
    return (file.endswith(".py") or "/" in file) and not file.startswith("/")


def _validated(found: _Found) -> Settings | None:
    try:
        return Settings.model_validate(found.values)
    except ValidationError as error:
        for one in error.errors(include_url=False):
            name = str(one["loc"][0])
            said = str(one["ctx"]["error"]) if one["type"] == "value_error" else _plain(one["msg"], one["input"])
            found.problems.append(f"{found.sources.get(name, DEFAULT).place}: {said}")
        return None


def _plain(message: str, given: object) -> str:
    return f"{message.replace('Input should be', 'expected')}, found {given!r}"


def _meant(name: str, show: Any) -> str:
    near = get_close_matches(name, Settings.model_fields, n=1)
    return f" (did you mean {show(near[0])}?)" if near else ""


def _near(file: Path, folder: Path) -> str:
    return file.name if file.parent == folder else str(file)


def shown_url(url: str) -> str:
    """Give *url* without the password it may hold."""
    masked = re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", url)
    return re.sub(r"(?<=[?&])((?:ssl)?password)=[^&#]*", r"\1=***", masked)
