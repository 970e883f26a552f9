"""Where cgroups may be made, as /proc and the mounts say it, and what is asked of the kernel there.

The files are made up: controllers for memory and processes are seldom there where tests run.
"""

import os
from pathlib import Path

import pytest

from drqueue.slave import cgroups
from drqueue.slave.cgroups import Group, Home, Place, place

V1 = "{n} 31 0:3 / {root}/memory rw - cgroup cgroup rw,memory\n"
V2 = "{n} 31 0:4 {top} {root} rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"


class Machine:
    """A cgroup v2 hierarchy of plain files, and what /proc says of it."""

    def __init__(self, root: Path) -> None:
        self.root = root / "cgroup"
        self.mounts, self.own = root / "mountinfo", root / "self"
        self.root.mkdir()
        self.says("/")

    def says(self, path: str, top: str = "/", root: str = "") -> None:
        shown = root or str(self.root)
        self.mounts.write_text(V1.format(n=1, root="/elsewhere") + V2.format(n=2, top=top, root=shown))
        self.own.write_text(f"4:memory:/a\n1:name=systemd:/b\n0::{path}\n")

    def group(self, path: str, mark: str = "") -> Path:
        folder = self.root / path
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("cgroup.procs", "cgroup.kill", "cgroup.subtree_control", "cgroup.controllers"):
            (folder / name).touch()
        if mark:
            os.setxattr(folder, mark, b"1")
        return folder

    def place(self) -> Place:
        return place(str(self.mounts), str(self.own))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """As an ordinary user sees it, who may write everywhere below."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return Machine(tmp_path)


def test_a_groups_own(machine: Machine) -> None:
    folder = machine.group("system.slice/slave.service")
    machine.says("/system.slice/slave.service")
    found = machine.place()
    assert (found.path, found.beside, found.why) == (str(folder), False, "")


def test_beside_the_agent(machine: Machine) -> None:
    """Where the manager starts daemons in a group of their own; not where one is called so by chance."""
    folder = machine.group("slave.service")
    machine.group("slave.service/agent")
    machine.group("agent")
    machine.says("/slave.service/agent")
    assert (machine.place().path, machine.place().beside) == (str(folder), True)
    machine.says("/agent")
    assert (machine.place().path, machine.place().beside) == (str(machine.root / "agent"), False)


def test_a_group_that_others_own(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.group("a/agent")
    machine.says("/a/agent")
    for closed in ("", "/cgroup.procs"):
        shut = {f"{machine.root}/a{closed}"}
        monkeypatch.setattr(os, "access", lambda path, mode, shut=shut: path not in shut)
        assert machine.place().beside is False
        shut.add(f"{machine.root}/a/agent{closed}")
        found = machine.place()
        assert (found.path, found.why) == ("", "/a/agent is not delegated to it")


def test_root_needs_the_managers_mark(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could write anywhere; the mark may be on a group above. At the top there is nobody else."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    marked: set[str] = set()

    def getxattr(path: str, name: str) -> bytes:
        if name == "trusted.delegate":
            raise OSError(95, "not supported")
        return b"1" if path in marked else b"0"

    monkeypatch.setattr(os, "getxattr", getxattr)
    machine.group("s/slave.service")
    machine.group("s/slave.service/agent")
    machine.group("s")
    machine.says("/s/slave.service/agent")
    assert machine.place().path == ""
    marked.add(f"{machine.root}/s/slave.service")
    assert (machine.place().path, machine.place().beside) == (f"{machine.root}/s/slave.service", True)
    machine.says("/s")
    assert machine.place().path == ""
    machine.group("")
    machine.says("/")
    assert (machine.place().path, machine.place().beside) == (str(machine.root), False)


@pytest.mark.parametrize(
    ("own", "top", "found"),
    [("/docker/x", "/docker/x", ""), ("/docker/x/a", "/docker/x", "/a"), ("/docker/xy", "/docker/x", None),
     ("/../a", "/", None), ("/", "/", "")],
)  # fmt: skip
def test_a_hierarchy_that_is_seen_in_part(machine: Machine, own: str, top: str, found: str | None) -> None:
    """In containers the mount may begin below its own group's name, or the group lie outside of it."""
    machine.group("a")
    machine.group("")
    machine.says(own, top)
    assert machine.place().path == ("" if found is None else str(machine.root) + found)


def test_a_mount_with_a_blank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (tmp_path / "a b").mkdir()
    machine = Machine(tmp_path / "a b")
    machine.group("x")
    machine.says("/x", root=str(machine.root).replace(" ", "\\040"))
    assert machine.place().path == str(machine.root / "x")


def test_no_v2(machine: Machine) -> None:
    machine.mounts.write_text(V1.format(n=1, root="/x"))
    assert "no cgroup v2" in machine.place().why
    machine.says("/")
    machine.own.write_text("4:memory:/a\n")
    assert "no cgroup v2" in machine.place().why
    machine.mounts.unlink()
    machine.own.unlink()
    assert "no cgroup v2" in machine.place().why


# --- what is asked of the kernel


class Kernel:
    """Fills new folders as the kernel does, hands controllers down, and removes groups with their files."""

    def __init__(self, controllers: str = "cpu memory pids", kills: bool = True) -> None:
        self.files = {"cgroup.procs", "cgroup.events", "cgroup.subtree_control"}
        if kills:
            self.files.add("cgroup.kill")
        self.controllers = controllers
        self._mkdir, self._rmdir, self._write = os.mkdir, os.rmdir, cgroups._write

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self._mkdir(path, mode)
        handed = Path(path).parent / "cgroup.subtree_control"
        names = set(self.files)
        for name in handed.read_text().split() if handed.exists() else ():
            names |= {"memory": {"memory.oom.group", "memory.max"}, "pids": {"pids.max"}}.get(name, set())
        for name in names:
            (Path(path) / name).touch()

    def write(self, path: str, text: str) -> bool:
        if not path.endswith("cgroup.subtree_control"):
            return self._write(path, text)
        above = Path(path).parent.parent / "cgroup.subtree_control"
        name = text.removeprefix("+")
        if name not in (above.read_text().split() if above.exists() else self.controllers.split()):
            return False
        with Path(path).open("a") as file:
            file.write(f" {name}")
        return True

    def rmdir(self, path: str) -> None:
        for each in Path(path).iterdir():
            each.unlink()
        self._rmdir(path)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    it = Kernel()
    monkeypatch.setattr(os, "mkdir", it.mkdir)
    monkeypatch.setattr(cgroups, "_write", it.write)
    return it


def a_home(tmp_path: Path, beside: bool) -> Home:
    (tmp_path / "base").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "base" / "cgroup.controllers").touch()
    return Home(str(tmp_path / "state"), Place(str(tmp_path / "base"), beside))


def said(path: Path) -> dict[str, str]:
    return {each.name: each.read_text() for each in path.iterdir() if each.is_file() and each.read_text()}


def test_beside_the_agent_frames_have_limits(tmp_path: Path, kernel: Kernel) -> None:
    home = a_home(tmp_path, beside=True)
    assert (home.memory, home.pids) == (True, True)
    assert cgroups.noted(str(tmp_path / "state")) == (home.path, "memory pids")
    group = home.enter((1, 2, 3, 4), (100, 1 << 30))
    assert group is not None
    assert (group.path, group.counted) == (f"{home.path}/1.2.3.4", True)
    assert said(Path(group.path)) == {
        "memory.oom.group": "1",
        "memory.max": str(1 << 30),
        "pids.max": "100",
    }
    free = home.enter((1, 2, 3, 5), (0, 0))
    assert free is not None
    assert said(Path(free.path)) == {"memory.oom.group": "1"}


def test_in_ones_own_group_no_controller_is_handed_down(tmp_path: Path, kernel: Kernel) -> None:
    """The manager starts the next daemon right there, which it could not if there were one."""
    home = a_home(tmp_path, beside=False)
    assert (home.memory, home.pids) == (False, False)
    assert (tmp_path / "base" / "cgroup.subtree_control").read_text() == ""
    assert cgroups.noted(str(tmp_path / "state")) == (home.path, "")
    group = home.enter((1, 2, 3, 4), (100, 1 << 30))
    assert group is not None
    assert (said(Path(group.path)), group.counted) == ({}, False)


def test_controllers_that_are_not_there(tmp_path: Path, kernel: Kernel) -> None:
    kernel.controllers = "cpu pids"
    home = a_home(tmp_path, beside=True)
    assert (home.memory, home.pids) == (False, True)
    group = home.enter((1, 2, 3, 4), (100, 1 << 30))
    assert group is not None
    assert (said(Path(group.path)), group.counted) == ({"pids.max": "100"}, False)


def test_a_kernel_that_kills_no_groups(
    tmp_path: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.files.remove("cgroup.kill")
    monkeypatch.setattr(os, "rmdir", kernel.rmdir)
    home = a_home(tmp_path, beside=False)
    assert (home.path, home.enter((1, 2, 3, 4), (0, 0))) == ("", None)
    assert cgroups.noted(str(tmp_path / "state")) == ("", "this kernel cannot kill a group (Linux 5.14 can)")


def test_nothing_can_be_made_or_noted(tmp_path: Path) -> None:
    """A place that went away, a state directory that did: frames run without."""
    (tmp_path / "state").mkdir()
    home = Home(str(tmp_path / "state"), Place("/proc/none", False))
    assert home.enter((1, 2, 3, 4), (0, 0)) is None
    assert cgroups.noted(str(tmp_path / "state")) == (
        "",
        "no group can be made in /proc/none: No such file or directory",
    )
    home = Home(str(tmp_path / "gone"), Place(str(tmp_path), False))
    assert (home.path, home.why) == ("", "No such file or directory")
    home.close()


def test_what_the_kernel_counted(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("low 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n")
    (tmp_path / "memory.peak").write_text("123456\n")
    group = Group(str(tmp_path), counted=True)
    assert (group.oom_kills(), group.peak()) == (2, 0)  # it was not there from the start
    group.whole = True
    assert group.peak() == 123456
    uncounted = Group(str(tmp_path / "none"), counted=False)
    uncounted.whole = True
    assert (uncounted.oom_kills(), uncounted.peak()) == (0, 0)


@pytest.mark.parametrize(
    ("events", "procs", "below", "empty"),
    [("populated 0\nfrozen 0\n", "", "", True), ("populated 1\nfrozen 0\n", "17\n", "", False),
     ("populated 1\n", "", "18\n", False), ("populated 1\n", "", "", True), (None, "", "", True)],
)  # fmt: skip
def test_when_a_group_is_empty(
    tmp_path: Path, events: str | None, procs: str, below: str, empty: bool
) -> None:
    """What has died may still be counted as its population for a moment; it is listed no more."""
    (tmp_path / "below").mkdir()
    if events is not None:
        (tmp_path / "cgroup.events").write_text(events)
    (tmp_path / "cgroup.procs").write_text(procs)
    (tmp_path / "below" / "cgroup.procs").write_text(below)
    assert Group(str(tmp_path), counted=False).empty() is empty
