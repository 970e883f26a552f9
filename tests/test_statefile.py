"""State files and the lock on a state directory."""

import json
import os
import stat
from pathlib import Path

import pytest

from drqueue import statefile
from drqueue.statefile import StateError, lock_state_dir, read_json, remote_filesystem, write_json_atomic


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_written_is_read_back_and_private(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")
    path.chmod(0o644)
    write_json_atomic(str(path), {"a": [1, None, "é"]})
    assert read_json(str(path)) == {"a": [1, None, "é"]}
    assert mode(path) == 0o600
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    assert read_json(str(tmp_path / "a.json")) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\0" * 50, b"\xff{}", b'{"a": NaN}', b"[" * 100_000, b'{"a":' * 20_000,
     b" " * (statefile.MAX_BYTES + 1)],
    ids=range(10),
)  # fmt: skip
def test_a_damaged_file_is_refused_by_name_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"a\.json is damaged"):
        read_json(str(path))
    assert path.read_bytes() == content


def test_links_folders_and_pipes_are_no_state_files(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("{}")
    (tmp_path / "link").symlink_to("real")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "."):
        with pytest.raises(StateError):
            read_json(str(tmp_path / name))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_json_atomic(str(path), {"a": 1})

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match=r"cannot write .*a\.json: No space left on device"):
        write_json_atomic(str(path), {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_leftover_of_a_killed_writer_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "a.json.new").write_text("x" * 1000)
    write_json_atomic(str(tmp_path / "a.json"), {})
    assert read_json(str(tmp_path / "a.json")) == {}


def test_the_lock_makes_a_private_directory_and_names_the_other_pid(tmp_path: Path) -> None:
    path = tmp_path / "x" / "state"
    fd = lock_state_dir(str(path), "master")
    assert mode(path) == 0o700
    assert mode(path / "lock") == 0o600
    assert not os.get_inheritable(fd)
    with pytest.raises(
        StateError, match=f"state directory {path} is in use by another master, pid {os.getpid()}$"
    ):
        lock_state_dir(str(path), "master")
    with pytest.raises(StateError, match=f"is in use by a master, pid {os.getpid()}$"):
        lock_state_dir(str(path), "slave")
    os.close(fd)
    os.close(lock_state_dir(str(path), "slave"))


def test_a_refused_lock_keeps_no_descriptor(tmp_path: Path) -> None:
    fd = lock_state_dir(str(tmp_path), "master")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StateError):
        lock_state_dir(str(tmp_path), "master")
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(fd)


def test_an_empty_or_own_open_directory_is_tightened(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.mkdir()
    for _ in range(2):
        path.chmod(0o755)
        os.close(lock_state_dir(str(path), "master"))
        assert mode(path) == 0o700


def test_a_shared_folder_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "home"
    path.mkdir()
    (path / "letters").write_text("")
    path.chmod(0o755)
    with pytest.raises(StateError, match="take an empty folder"):
        lock_state_dir(str(path), "master")
    (path / "letters").unlink()
    path.chmod(0o1777)
    with pytest.raises(StateError, match="take an empty folder"):
        lock_state_dir(str(path), "master")
    assert mode(path) == 0o1777
    assert os.listdir(path) == []


def test_a_file_as_state_directory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot use state directory"):
        lock_state_dir(str(tmp_path / "file"), "master")


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:50 / /net\\040disk rw shared:2 master:3 - nfs4 server:/x rw
31 22 0:51 / /win rw - cifs //server/x rw
32 22 0:52 / /p9 rw - 9p x rw
33 22 0:53 / /ssh rw - fuse.sshfs x rw
"""


@pytest.mark.parametrize(
    ("mount", "kind"), [(22, None), (30, "nfs4"), (31, "cifs"), (32, None), (33, "fuse.sshfs"), (99, None)]
)
def test_network_file_systems_are_known_by_their_mount(mount: int, kind: str | None) -> None:
    texts = {"/proc/self/fdinfo/7": f"pos:\t0\nmnt_id:\t{mount}\nino:\t1\n", "/proc/self/mountinfo": MOUNTS}
    assert remote_filesystem(7, texts.__getitem__) == kind


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statefile, "remote_filesystem", lambda fd: "nfs4")
    with pytest.raises(StateError, match=r"is on a network file system \(nfs4\); use a local disk"):
        lock_state_dir(str(tmp_path), "slave")


def test_this_machines_own_mounts_can_be_read(tmp_path: Path) -> None:
    """The kernel's real files have the form that is expected: the mount of a directory is found."""
    fd = os.open(tmp_path, os.O_RDONLY)
    seen: list[str] = []

    def read(path: str) -> str:
        seen.append(Path(path).read_text())
        return seen[-1]

    assert remote_filesystem(fd, read) is None
    os.close(fd)
    mount = seen[0].split("mnt_id:")[1].split()[0]
    assert any(line.split()[0] == mount for line in seen[1].splitlines())
