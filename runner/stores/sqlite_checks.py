"""What makes a place or a file unfit for a SQLite store, found out before it is used."""

import os
import re
from pathlib import Path
from typing import Final

import apsw

from asyncflow.errors import Unavailable

# Write-ahead logging needs memory that all processes share and locks that are true: no file system over a network has
# both, and the loss comes later and silently. Names as in the third column of /proc/mounts.
NETWORK_FILE_SYSTEMS: Final = frozenset((
    "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3",
    "smbfs", "fuse.ceph", "fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs", "fuse.juicefs", "fuse.rclone", "fuse.s3fs",
    "fuse.sshfs",
))  # fmt: skip
# The SQLite versions with the WAL-reset fault, which can lose acknowledged commits, end here; two older lines have the
# correction too.
_WAL_SOUND: Final = (3, 51, 3)
_WAL_SOUND_LINES: Final = {(3, 44): 6, (3, 50): 7}


def refuse_network(path: Path, mounts: Path = Path("/proc/mounts")) -> None:
    """Refuse a file that lies on another host, where *mounts* can tell: `Unavailable`."""
    try:
        table = mounts.read_text("utf-8", "replace")
    except OSError:
        return  # not Linux: nothing can be told
    kind = _file_system(os.path.realpath(path), table)
    if kind in NETWORK_FILE_SYSTEMS:
        raise Unavailable(f"{path} lies on a network file system ({kind}), where SQLite loses data: use a local disk")


def _file_system(path: str, table: str) -> str:
    """Return the type of the file system that holds *path*: of the longest mount point above it, the last mounted."""
    best, kind = -1, ""
    for line in table.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), fields[1])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, kind = len(point), fields[2]
    return kind


def refuse_unsound_library(version: str) -> None:
    """Refuse a SQLite library with the WAL-reset fault: `Unavailable`."""
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    sound_patch = _WAL_SOUND_LINES.get((major, minor))
    if (major, minor, patch) < _WAL_SOUND and (sound_patch is None or patch < sound_patch):
        raise Unavailable(f"SQLite {version} may lose commits when its log starts anew: install apsw 3.51.3 or newer")


def refuse_corrupt(connection: apsw.Connection, path: str) -> None:
    """Read the whole file and refuse it if anything in it is broken: `Unavailable`. About 1 s for each GB."""
    row = connection.execute("PRAGMA quick_check(1)").fetchone()
    if row is None or row[0] != "ok":
        found = "no answer" if row is None else row[0]
        raise Unavailable(
            f"{path}: it is corrupt and was left as it is: restore a copy, or rescue what is left by `.recover` ({found})"
        )
