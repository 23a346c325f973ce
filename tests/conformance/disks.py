"""Disks that fail on demand, for SQLite: as a VFS over the real one."""

import shutil
from pathlib import Path

import apsw


class FaultyDisk(apsw.VFS):
    """Counts writes and flushes; fails from one of them on; keeps what a loss of power would leave.

    Args:
        name: Of the VFS, given to `SqliteStore(vfs=…)`.
        flushed: A folder that gets a copy of each file at its every flush.
        really: Whether a flush reaches the real disk, which takes its time.
    """

    def __init__(self, name: str, flushed: Path | None = None, *, really: bool = True) -> None:
        super().__init__(name, "")
        self.name = name
        self.really = really
        self.flushed = flushed
        self.calls: list[str] = []
        self.error: type[apsw.Error] | None = None
        self.first = 0
        self.last = 0
        self.read_only = False

    def fail(self, error: type[apsw.Error], first: int = 1, times: int = 1_000_000) -> None:
        """Raise *error* in the *first* call from now on, and in all the calls up to *times* of them."""
        self.error = error
        self.first = len(self.calls) + first
        self.last = self.first + times - 1

    def heal(self) -> None:
        """Fail no more."""
        self.error = None

    @property
    def failed(self) -> bool:
        """Tell whether a call has failed since `fail`."""
        return self.error is not None and len(self.calls) >= self.first

    def count(self, call: str) -> None:
        self.calls.append(call)
        if self.error is not None and self.first <= len(self.calls) <= self.last:
            raise self.error(f"the disk of this test fails at call {len(self.calls)}, {call}")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        if self.read_only and flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            flags[0] = flags[0] & ~(apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE) | apsw.SQLITE_OPEN_READONLY
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        if self.flushed is not None:
            (self.flushed / Path(filename).name).unlink(missing_ok=True)


class _File(apsw.VFSFile):
    def __init__(self, disk: FaultyDisk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        self._path = Path(name.filename() if isinstance(name, apsw.URIFilename) else str(name))
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.count(f"write {self._path.name}")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._disk.count(f"flush {self._path.name}")
        if self._disk.really:
            super().xSync(flags)
        if self._disk.flushed is not None:
            self._disk.flushed.mkdir(exist_ok=True)
            shutil.copy(self._path, self._disk.flushed / self._path.name)
