"""Finding workflows: a target is a module, `module:Class`, a file, `file.py:Class`, or several of these with commas."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Final

from asyncflow import DefinitionError, Workflow
from asyncflow.errors import Malformed

OURS: Final = {name: Path(__file__).parents[1] / name for name in ("asyncflow", "runner")}
"""The packages that a module of the user's may hide, or be hidden by."""


class TargetError(Malformed):
    """A target in which no workflows can be found; the text says what was looked for, where, and what to do."""


def find_workflows(target: str, folders: Sequence[Path]) -> list[type[Workflow]]:
    """Import what *target* names and give its workflow classes, each once.

    Args:
        target: As above; a name behind the colon may also be that of a list of classes.
        folders: Where modules and files are looked for, the first one first. They are put on `sys.path`.

    Raises:
        TargetError: There is no such module, file or class, it cannot be imported, or it has no workflow.
        DefinitionError: A class there can be none.
    """
    _put_on_path(folders)
    found: dict[type[Workflow], None] = {}
    for one in (part.strip() for part in target.split(",")):
        place, _, name = one.partition(":")
        if not place:
            raise TargetError(f"expected a module, module:Class or a file, found {target!r}")
        module = _import_file(place, folders) if _is_file(place) else _import_module(place, folders)
        found.update(dict.fromkeys(_named(module, name, one) if name else _all_of(module, one)))
    return list(found)


def folders_of(target: str, folders: Sequence[Path]) -> list[Path]:
    """Give the folders whose files a change of *target* would be seen in, without importing anything."""
    found = [folders[0]]
    for one in target.split(","):
        place = one.strip().partition(":")[0]
        if _is_file(place):
            found += [file.parent for file in _candidates(place, folders) if file.is_file()][:1]
    return [one for one in dict.fromkeys(found) if not any(other in one.parents for other in found)]


# -- modules and files -------------------------------------------------------------------------------------------------


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place


def _put_on_path(folders: Sequence[Path]) -> None:
    for folder in reversed(folders):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def _candidates(place: str, folders: Sequence[Path]) -> list[Path]:
    return [(folder / place).resolve() for folder in folders]


def _import_file(place: str, folders: Sequence[Path]) -> ModuleType:
    candidates = _candidates(place, folders)
    file = next((one for one in candidates if one.is_file()), None)
    if file is None:
        near = get_close_matches(Path(place).name, [one.name for one in candidates[0].parent.glob("*.py")], n=1)
        meant = f"; did you mean {candidates[0].parent / near[0]}?" if near else ""
        raise TargetError(f"there is no file {' or '.join(map(str, candidates))}{meant}")
    root, parts = file.parent, [file.stem]
    while (root / "__init__.py").is_file():  # a file of a package is imported as that, so that its own imports work
        root, parts = root.parent, [root.name, *parts]
    if parts[-1] == "__init__":
        parts.pop()
    name = ".".join(parts)
    _refuse_shadow(parts[0], place)
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) != str(file):
        other = getattr(known, "__file__", None) or "built into Python"
        raise TargetError(f"the file {place} would be the module {name!r}, which is another one ({other}): rename the file")
    _put_on_path([root])
    return _imported(name, place, folders)


def _import_module(place: str, folders: Sequence[Path]) -> ModuleType:
    if not all(part.isidentifier() for part in place.split(".")):
        raise TargetError(f"expected a module, module:Class or a file that ends with .py, found {place!r}")
    _refuse_shadow(place.partition(".")[0], place)
    return _imported(place, place, folders)


def _imported(name: str, place: str, folders: Sequence[Path]) -> ModuleType:
    try:
        return importlib.import_module(name)
    except DefinitionError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and (name + ".").startswith(error.name + "."):
            where = " or ".join(map(str, folders))
            text = f"there is no module {error.name!r} in {where} or among what is installed: {_instead(place, folders)}"
            raise TargetError(text) from error
        said = f"{place} cannot be imported: {_said(error)}"
        shadow = shadow_in([*folders, *_folders_of_traceback(error)])
        hint = f"\n{shadow}" if shadow is not None and isinstance(error, ImportError | AttributeError) else ""
        raise TargetError(f"{said}\n{_own_frames(error)}{hint}".rstrip()) from error


def _said(error: BaseException) -> str:
    """The error in a line; one of syntax has no frame of its own, so it says where it is, and shows it."""
    if isinstance(error, SyntaxError):
        where = f"{error.filename}:{error.lineno}: " if error.filename and error.lineno else ""
        shown = f"\n  {error.text.strip()}" if error.text and error.text.strip() else ""
        return f"{type(error).__name__}: {where}{error.msg}{shown}"
    return f"{type(error).__name__}: {error}"


def _instead(place: str, folders: Sequence[Path]) -> str:
    for folder in folders:
        file = folder.joinpath(*place.split(".")).with_suffix(".py")
        if file.is_file():
            return f"say {file}"
    return "name a module that can be imported from here, or a file that ends with .py"


def _own_frames(error: BaseException) -> str:
    """The traceback from where the user's code begins: the machinery of imports says nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if not one.filename.startswith("<frozen") and one.filename != __file__]
    own = [one for one in own if one.filename != importlib.__file__]
    return "".join(traceback.format_list(own)).rstrip()


def _folders_of_traceback(error: BaseException) -> list[Path]:
    return [Path(one.filename).parent for one in traceback.extract_tb(error.__traceback__) if one.filename[0] != "<"]


# -- classes -----------------------------------------------------------------------------------------------------------


def _is_workflow(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, Workflow) and thing.definition is not Workflow.definition


def _all_of(module: ModuleType, target: str) -> Iterator[type[Workflow]]:
    found = [thing for name, thing in vars(module).items() if _is_workflow(thing) and not name.startswith("_")]
    if not found:
        expected = f"expected a subclass of asyncflow.Workflow with a definition() in {module.__file__}"
        raise TargetError(f"{target} has no workflow: {expected}")
    yield from found


def _named(module: ModuleType, name: str, target: str) -> Iterator[type[Workflow]]:
    thing = getattr(module, name, None)
    if isinstance(thing, list | tuple) and thing and all(_is_workflow(one) for one in thing):
        yield from thing
    elif _is_workflow(thing) and isinstance(thing, type):
        yield thing
    else:
        known = ", ".join(key for key, value in vars(module).items() if _is_workflow(value)) or "none"
        what = "is not there" if thing is None else f"is a {type(thing).__name__}"
        raise TargetError(f"{target}: expected {name!r} to be a workflow class, it {what}; {module.__name__} has: {known}")


# -- shadows -----------------------------------------------------------------------------------------------------------


def _refuse_shadow(top: str, place: str) -> None:
    if top in OURS:
        raise TargetError(f"{place}: your module {top!r} and asyncflow's package {top!r} hide each other: rename yours")


def shadow_in(folders: Sequence[Path]) -> str | None:
    """Say which module in *folders* has the name of one of our packages, and what to do; None if there is none."""
    for folder in folders:
        for name, ours in OURS.items():
            for file in (folder / f"{name}.py", folder / name / "__init__.py"):
                if file.is_file() and file.parent.resolve() != ours.resolve():
                    return (
                        f"{file} has the name of asyncflow's package {name!r}, and one of the two hides the other: "
                        f"`import {name}` gives asyncflow's here, and yours in a program started there. Rename yours"
                    )
    return None
