"""Which places are refused because they are on another machine."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from sidecar.errors import StoreUnavailable
from sidecar.stores import mounts
from sidecar.stores.mounts import refuse_remote, remote_mount, windows_share
from sidecar.stores.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

TABLE = """\
overlay / overlay rw,relatime 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
/dev/sdb1 /home/ada/local ext4 rw 0 0
//nas/media /mnt/my\\040share cifs rw 0 0
ada@host:/ /home/ada/local/remote fuse.sshfs rw 0 0
tmpfs /mnt/my\\040share/inner tmpfs rw 0 0
server:/a /srv nfs rw 0 0
/dev/sdc1 /srv ext4 rw 0 0
garbage
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/store", None),
        ("/home/ada/store", "nfs4"),
        ("/homes/ada", None),
        ("/home/ada/local/store", None),
        ("/home/ada/local/remote/x/y", "fuse.sshfs"),
        ("/mnt/my share/x", "cifs"),
        ("/mnt/my share/inner/x", None),
        ("/srv/x", None),
    ],
)
def test_the_innermost_and_latest_mount_decides(path: str, kind: str | None) -> None:
    assert remote_mount(PurePosixPath(path), TABLE) == kind


def test_without_a_table_nothing_is_known_to_be_remote() -> None:
    assert remote_mount(PurePosixPath("/x"), "") is None


@pytest.mark.parametrize(
    ("path", "is_share"),
    [
        (r"C:\Users\ada", False),
        (r"\\server\share\folder", True),
        ("//server/share", True),
        (r"\\?\C:\Users", False),
        (r"\\?\UNC\server\share\folder", True),
        (r"\\.\pipe\x", False),
    ],
)
def test_a_windows_share_is_told_by_its_path(path: str, is_share: bool) -> None:
    assert (windows_share(path) is not None) == is_share


async def test_a_store_on_a_network_mount_is_refused_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "kind_of_remote", lambda path: "nfs4")
    with pytest.raises(StoreUnavailable) as refused:
        await SqliteStore.open(tmp_path / "store.db", print)
    assert "local disk" in (refused.value.hint or "")
    assert not (tmp_path / "store.db").exists()


def test_a_local_folder_is_not_refused(tmp_path: Path) -> None:
    refuse_remote(tmp_path)
