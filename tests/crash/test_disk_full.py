"""A disk that fills up under a process at work, and has room again: nothing acknowledged is lost."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.siege import fill_the_disk

MIB = 32
"""Twice what SQLite's log grows to before it is copied into the file."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={MIB}m", "asyncflow-test", place], capture_output=True, text=True
        )
    except FileNotFoundError as missing:
        pytest.skip(f"a small disk needs mount: {missing}")
    if mounted.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.slow
def test_a_full_disk_loses_nothing_and_all_goes_on_when_there_is_room(disk: Path, tmp_path: Path) -> None:
    figures = fill_the_disk(tmp_path, disk, seed=6)
    assert figures.account.faults == []
    assert figures.account.instances
    assert "could not be saved, trying again: " in (tmp_path / "log").read_text()
