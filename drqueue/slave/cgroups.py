"""A cgroup of its own for each frame: all in it die at once, what it starts is in it, the kernel counts.

Standard library only, without `typing`: the keeper imports this by path and has to stay small.
Only cgroup v2, and only where this process's own group is its to divide. A keeper's groups lie in a *home*,
`drqueue-DEV-INODE` of its state directory, so that the next keeper knows them: `JOB.LAYER.FRAME.ATTEMPT`.
The home lies in the keeper's own group, which hands no controllers down: a group that does may hold no
processes, and a service's manager starts the next daemon right there. Where the manager starts daemons in a
group below (`DelegateSubgroup=agent`), the home lies beside that one, and frames get limits.
Whatever fails here is no failure of a frame: its tree is walked then, as it is in any case.
"""

import os
import time

NOTE = "keeper.cgroup"  # in the state directory: the home and its controllers, or "" and why there is none
PREFIX = "drqueue-"
AGENT = "agent"
CONTROLLERS = ("memory", "pids")
MARKS = ("trusted.delegate", "user.delegate")
LEFT_S = 60.0  # a group that was left empty so long ago is nobody's: a frame enters within ten seconds
MOUNTS, OWN = "/proc/self/mountinfo", "/proc/self/cgroup"

Limits = tuple[int, int]  # most processes and threads; most memory in bytes; 0: any amount


def read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        data = part = os.read(fd, 65536)
        while part:
            part = os.read(fd, 65536)
            data += part
    except OSError:
        return ""
    finally:
        os.close(fd)
    return data.decode("utf-8", "surrogateescape")


def _path_of(cgroup: str) -> str:
    """What a /proc/PID/cgroup says of v2."""
    for line in read(cgroup).splitlines():
        if line.startswith("0::"):
            return line[3:]
    return ""


def _write(path: str, text: str) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, text.encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _number(path: str, word: str = "") -> int:
    """The number in a file, or behind a word in it; 0 where there is none."""
    for line in read(path).splitlines():
        name, _, value = line.rpartition(" ")
        if name == word and value.isdigit():
            return int(value)
    return 0


def name_of(key: tuple[int, int, int, int]) -> str:
    """What an attempt's group is called."""
    return "{}.{}.{}.{}".format(*key)


# --- where they may be


class Place:
    """A group that is this process's to divide; `beside`: it holds no process, and may hand down controllers.

    `path` is "" where there is none; then `why` says so.
    """

    __slots__ = ("beside", "path", "why")

    def __init__(self, path: str, beside: bool, why: str = "") -> None:
        self.path = path
        self.beside = beside
        self.why = why


def _mounted(kind: str, option: str, mounts: str) -> tuple[str, str]:
    """Where a hierarchy is mounted, and which of its groups that is; ("", "") where it is not."""
    for line in read(mounts).splitlines():
        head, _, tail = line.partition(" - ")
        words, (name, _, options) = head.split(), [*tail.split(), "", "", ""][:3]
        if name == kind and (not option or option in options.split(",")) and len(words) > 4:
            return _plain(words[4]), _plain(words[3])
    return "", ""


def _plain(text: str) -> str:
    for code, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, letter)
    return text


def own_folder(kind: str, option: str, mounts: str, own: str) -> tuple[str, str]:
    """This process's group in a hierarchy, and that hierarchy's top; ("", "") where it cannot be seen."""
    mount, root = _mounted(kind, option, mounts)
    for line in read(own).splitlines():
        _, names, path = [*line.split(":", 2), "", ""][:3]
        mine = names == "" if not option else option in names.split(",")
        inside = root == "/" or path == root or path.startswith(root + "/")
        if mount and mine and inside and not path.startswith("/.."):
            below = path if root == "/" else path[len(root) :]
            return os.path.normpath(mount + below), mount
    return "", ""


def place(mounts: str = MOUNTS, own: str = OWN) -> Place:
    """Where frames' groups can be; changes nothing."""
    folder, top = own_folder("cgroup2", "", mounts, own)
    if not folder:
        return Place("", False, "no cgroup v2 is mounted, or this process is in none that can be seen")
    shown = folder[len(top) :] or "/"
    parent = os.path.dirname(folder)
    if os.path.basename(folder) == AGENT and parent != top and _is_ours(parent, top):
        return Place(parent, True)
    if _is_ours(folder, top):
        return Place(folder, False)
    return Place("", False, f"{shown} is not delegated to it")


def _is_ours(folder: str, top: str) -> bool:
    """Whether a group may be divided. Root can write anywhere: there only the manager's mark counts."""
    if not os.access(folder, os.W_OK) or not os.access(f"{folder}/cgroup.procs", os.W_OK):
        return False
    if os.geteuid() != 0:
        return True
    if folder == top:  # in a container, or where there is no manager
        return True
    while folder != top:
        for name in MARKS:
            try:
                if os.getxattr(folder, name) == b"1":
                    return True
            except OSError:
                continue
        folder = os.path.dirname(folder)
    return False


# --- a keeper's


class Home:
    """Where a keeper's frames have their groups; `why` says why not, where `path` is ""."""

    __slots__ = ("_base", "_beside", "_note", "_own", "memory", "parting", "path", "pids", "why")

    def __init__(self, state_dir: str, where: Place | None = None) -> None:
        where = place() if where is None else where
        self._base, self._beside, self.why = where.path, where.beside, where.why
        self._own = _path_of(OWN)
        self._note = os.path.join(state_dir, NOTE)
        self.path = ""
        self.memory = self.pids = False
        self.parting: list[Group] = []  # ended, but not yet removed
        try:
            if self._base:
                info = os.stat(state_dir)
                self.path = f"{self._base}/{PREFIX}{info.st_dev:x}-{info.st_ino:x}"
                self._settle()
            if self.path:
                sweep(self._base)
            self._tell()
        except OSError as error:  # its disk is full, its state directory is gone
            self.path, self.why = "", error.strerror or str(error)

    def _settle(self) -> None:
        """Make the home; the trial that shows whether groups can be made and killed."""
        try:
            os.makedirs(self.path, exist_ok=True)
        except OSError as error:
            self.path, self.why = "", f"no group can be made in {self._base}: {error.strerror}"
            return
        if not os.path.exists(f"{self.path}/cgroup.kill"):
            os.rmdir(self.path)
            self.path, self.why = "", "this kernel cannot kill a group (Linux 5.14 can)"
            return
        for name in CONTROLLERS:
            if self._beside:
                _write(f"{self._base}/cgroup.subtree_control", f"+{name}")
            _write(f"{self.path}/cgroup.subtree_control", f"+{name}")
        handed = read(f"{self.path}/cgroup.subtree_control").split()
        self.memory, self.pids = "memory" in handed, "pids" in handed

    def _tell(self) -> None:
        handed = " ".join(name for name in CONTROLLERS if getattr(self, name))
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._note, flags, 0o600)
        try:
            os.write(fd, f"{self.path}\n{handed if self.path else self.why}\n".encode())
        finally:
            os.close(fd)

    def enter(self, key: tuple[int, int, int, int], limits: Limits) -> "Group | None":
        """Make an attempt's group, which is empty; None where that fails."""
        if not self.path:
            return None
        path = f"{self.path}/{name_of(key)}"
        try:
            if not os.path.isdir(self.path):  # somebody removed it as it was empty
                self._settle()
            os.mkdir(path)
        except FileExistsError:
            if not _remove(path):
                return None
            return self.enter(key, limits)
        except OSError:
            return None
        group = Group(path, self.memory)
        pids_most, memory_most = limits
        if self.memory:
            _write(f"{path}/memory.oom.group", "1")
            if memory_most:
                _write(f"{path}/memory.max", str(memory_most))
        if self.pids and pids_most:
            _write(f"{path}/pids.max", str(pids_most))
        return group

    def leave(self, group: "Group") -> None:
        """Remove a group, now or later: the kernel takes a moment over what has just died in it."""
        self.parting = [each for each in (*self.parting, group) if not _remove(each.path)]

    def where(self, pid: int) -> str:
        """The name of the attempt's group that a process is in; "" for the keeper's, the path of another."""
        inside = f"/{os.path.basename(self.path)}/"
        path = _path_of(f"/proc/{pid}/cgroup")
        if self.path and inside in path:
            return path.partition(inside)[2].partition("/")[0]
        return "" if path == self._own else path

    def close(self) -> None:
        """Be gone, as far as nothing is left here."""
        if self.path:
            _remove(self.path)
        try:
            os.unlink(self._note)
        except FileNotFoundError:
            return


class Group:
    """One attempt's cgroup. `whole`: it was there before the attempt's first process."""

    __slots__ = ("counted", "path", "whole")

    def __init__(self, path: str, counted: bool) -> None:
        self.path = path
        self.counted = counted  # whether the kernel counts its memory
        self.whole = False

    def join(self) -> bool:
        """Go in with this very process; False where that fails, which costs the process nothing."""
        return self.add(0)

    def add(self, pid: int) -> bool:
        """Take a process in; what it starts from now on is here, too."""
        return _write(f"{self.path}/cgroup.procs", str(pid))

    def kill(self) -> bool:
        """Kill all that is here and all that it is about to start."""
        return _write(f"{self.path}/cgroup.kill", "1")

    def empty(self) -> bool:
        # What is dying may still count as population, but is no process any more.
        return "populated 1" not in read(f"{self.path}/cgroup.events") or not self.processes()

    def processes(self) -> list[int]:
        """All that live here or in groups below."""
        return [
            int(word)
            for folder, _, _ in os.walk(self.path)
            for word in read(f"{folder}/cgroup.procs").split()
        ]

    def oom_kills(self) -> int:
        """How many of its processes the kernel killed for want of memory, whoever ran out of it."""
        return _number(f"{self.path}/memory.events", "oom_kill")

    def peak(self) -> int:
        """The most memory that was charged to it (bytes), file cache included; 0 where that is not known."""
        return _number(f"{self.path}/memory.peak") if self.counted and self.whole else 0


def sweep(base: str) -> None:
    """Remove what killed keepers left behind in a group: homes that are empty, and were for a while."""
    past = time.time() - LEFT_S
    for name in os.listdir(base):
        if name.startswith(PREFIX) and "populated 0" in read(f"{base}/{name}/cgroup.events"):
            _remove(f"{base}/{name}", past)


def _remove(path: str, before: float | None = None) -> bool:
    """Remove an empty group with all below it; whether it is gone. `before`: only what is older than that."""
    try:
        below = [entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
        if before is not None and os.stat(path).st_mtime > before:
            return False
        if all([_remove(each, before) for each in below]):  # noqa: C419 - all of them, whatever fails
            os.rmdir(path)
            return True
    except FileNotFoundError:
        return True
    except OSError:  # it is not empty
        return False
    return False


# --- from outside


def noted(state_dir: str) -> tuple[str, str] | None:
    """What a slave's last keeper noted: its home and controllers, or "" and why; None: nothing."""
    lines = read(os.path.join(state_dir, NOTE)).splitlines()
    return (lines[0], lines[1]) if len(lines) == 2 else None


def members(state_dir: str, key: tuple[int, int, int, int]) -> list[int]:
    """The processes in the group that the slave's keeper gave an attempt."""
    home, _ = noted(state_dir) or ("", "")
    return Group(f"{home}/{name_of(key)}", False).processes() if home else []
