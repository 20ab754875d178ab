"""Whether a place is on another machine. SQLite's locks and its shared memory are not to be
trusted there, so a store on a network mount is refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path, PurePosixPath

from ..errors import StoreUnavailable

_REMOTE = frozenset({
    "nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph",
    "glusterfs", "lustre", "beegfs", "gpfs", "davfs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph",
    "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse", "fuse.davfs2", "fuse.smbnetfs",
    "fuse.curlftpfs", "fuse.gvfsd-fuse",
})  # fmt: skip
_ESCAPED = re.compile(r"\\([0-7]{3})")
_WINDOWS_SHARE = re.compile(
    r"^[\\/]{2}(?:[?.][\\/]UNC[\\/])?(?![?.][\\/])[^\\/]+[\\/]+[^\\/]+", re.I
)


def refuse_remote(path: Path) -> None:
    """Raise `StoreUnavailable` for a place on a network mount."""
    if kind := kind_of_remote(path):
        raise StoreUnavailable(
            f"The store is on a network mount ({kind}), where locks cannot be relied on.",
            hint="Choose a folder on a local disk with --store.",
            retryable=False,
        )


def kind_of_remote(path: Path) -> str | None:
    """The network file system that `path` is on; None for a local disk, or where the platform
    does not say."""
    if sys.platform == "win32":
        return windows_share(str(path.absolute()))
    try:
        table = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    return remote_mount(PurePosixPath(path.resolve()), table)


def remote_mount(path: PurePosixPath, table: str) -> str | None:
    """The same from a mounts table as Linux writes it. A later line covers an earlier one."""
    best, kind = -1, ""
    for line in table.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = PurePosixPath(_ESCAPED.sub(lambda found: chr(int(found[1], 8)), fields[1]))
        if len(point.parts) >= best and path.is_relative_to(point):
            best, kind = len(point.parts), fields[2]
    return kind if kind in _REMOTE else None


def windows_share(path: str) -> str | None:
    return "share" if _WINDOWS_SHARE.match(path) else None
