"""What the tests of frames of other users share. They need root, to have real second users.

Two keepers are looked at: one of root, and one of an ordinary user with the three capabilities that the
shipped unit gives a slave, ambient, as systemd gives them.
"""

import atexit
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from tests.slave.tree_harness import Client, Ward

#: uid, gid, further groups of frames, and of somebody else; nobody has these numbers.
OTHER = (54_321, 54_322, (54_322, 54_323))
THIRD = (54_331, 54_332, ())
#: The ordinary user that a slave runs as.
SLAVE = 54_341
CAPS = "+setuid,+setgid,+kill"
KINDS = ("root", "ambient")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have second users")


def as_slave(ambient: bool = True) -> list[str]:
    """The words before a command that run it as the slave's ordinary user."""
    words = ["setpriv", "--reuid", str(SLAVE), "--regid", str(SLAVE), "--clear-groups"]
    given = ["--inh-caps", CAPS, "--ambient-caps", CAPS] if ambient else []
    return [*words, *given, "--"]


def as_user(user: tuple[int, int, tuple[int, ...]] = OTHER) -> list[str]:
    """The words before a command that run it as a frame's user."""
    return ["setpriv", "--reuid", str(user[0]), "--regid", str(user[1]), "--clear-groups", "--"]


@cache
def python_for_all() -> str:
    """A Python of this version that every user may run; the test is skipped where there is none."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        # By way of sh, which has no rights of root's left when it looks for it.
        words = [*as_user(), "/bin/sh", "-c", '"$0" -I -S -c "import ctypes, json"', python]
        if subprocess.run(words, capture_output=True, check=False).returncode == 0:
            return python
    pytest.skip(f"no {name} here that every user may run")


@cache
def tree_for_all() -> tuple[Path, Path]:
    """The checkout and the installed packages, or copies of them where other users may not enter those."""
    root, packages = Path(__file__).parent.parent.parent, Path(sysconfig.get_paths()["purelib"])
    looked = [root / "drqueue" / "slave" / "keeper.py", Path(__file__), packages / "trio" / "__init__.py"]
    words = [*as_slave(ambient=False), "/bin/sh", "-c", 'for it; do test -r "$it" || exit 1; done', "sh"]
    if subprocess.run([*words, *map(str, looked)], check=False).returncode == 0:
        return root, packages
    copy = Path(tempfile.mkdtemp(prefix="drqueue-run-as-tree-"))
    atexit.register(shutil.rmtree, copy)
    copy.chmod(0o755)
    left_out = shutil.ignore_patterns(
        "__pycache__", "*mypy*", "pip", "cryptography", "hypothesis", "pygments"
    )
    for name in ("drqueue", "tests"):
        shutil.copytree(root / name, copy / name, ignore=left_out)
    shutil.copytree(packages, copy / "packages", ignore=left_out, symlinks=True)
    return copy, copy / "packages"


def python_env() -> dict[str, str]:
    """With this, that Python finds the package and what it needs."""
    return {"PYTHONPATH": os.pathsep.join(map(str, tree_for_all())), "PATH": "/usr/bin:/bin"}


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter (pytest's own may only root)."""
    folder = Path(tempfile.mkdtemp(prefix="drqueue-run-as-"))
    try:
        folder.chmod(0o711)
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def open_ward(uid: int) -> Iterator[Ward]:
    """A ward whose slave has that uid: its state is closed to others, its `work` is open to all."""
    with open_folder() as root:
        it = Ward(root)
        it.state.chmod(0o700)
        it.work.chmod(0o1777)
        for path in (it.state, it.logs, it.work):
            os.chown(path, uid, uid)
        try:
            yield it
        finally:
            left = it.sweep()
        assert not left, f"left behind: {left}"


def start_keeper(ward: Ward, before: Sequence[str] = ()) -> Client:
    """A keeper as that user."""
    ours, theirs = socket.socketpair()
    keeper = tree_for_all()[0] / "drqueue" / "slave" / "keeper.py"
    argv = [*before, python_for_all(), "-I", "-S", "-X", "utf8", str(keeper), str(ward.state), "30"]
    actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)]
    child = os.posix_spawnp(argv[0], argv, {"PATH": "/usr/bin:/bin"}, file_actions=actions, setsid=True)
    theirs.close()
    client = Client(ours, ward, child)
    client.send({"v": 1})
    return client


def status_of(text: str) -> dict[str, list[str]]:
    """A /proc/PID/status by field."""
    return {name: value.split() for name, _, value in (line.partition(":") for line in text.splitlines())}
