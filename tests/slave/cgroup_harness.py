"""Real cgroups for tests: where there are any, and frames in them."""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from drqueue.slave import cgroups
from tests.slave.tree_harness import Ward, until

LIMITS = [0, 0]
V1_MEMORY = Path("/sys/fs/cgroup/memory")


def _unless_required(name: str, why: str) -> None:
    if name in os.environ.get("DRQUEUE_REQUIRE", "").split(","):
        pytest.fail(f"{why}, and DRQUEUE_REQUIRE names {name}", pytrace=False)
    pytest.skip(why)


def needs_cgroups() -> None:
    """Skip a test where this process's cgroup is not its own to divide, unless `cgroup` is required."""
    place = cgroups.place()
    if not place.path:
        _unless_required("cgroup", f"frames get no cgroups here: {place.why}")
    trial = f"{place.path}/test-{secrets.token_hex(8)}"
    try:
        os.mkdir(trial)
        able = os.path.exists(f"{trial}/cgroup.kill")
        os.rmdir(trial)
    except OSError as error:
        _unless_required("cgroup", f"no cgroup can be made here: {error}")
    else:
        if not able:
            _unless_required("cgroup", "this kernel cannot kill a cgroup")


@contextmanager
def little_memory(most: int) -> Iterator[Path]:
    """A cgroup v1 of this test's own whose processes share so many bytes; skips as `needs_cgroups` does."""
    folder = V1_MEMORY / f"test-{secrets.token_hex(8)}"
    try:
        folder.mkdir()
    except OSError as error:
        _unless_required("oom", f"no cgroup v1 for memory can be made here: {error}")
    try:
        (folder / "memory.limit_in_bytes").write_text(str(most))
        with suppress(OSError):  # where swap is not counted there is none, or it is used up soon
            (folder / "memory.memsw.limit_in_bytes").write_text(str(most))
        yield folder
    finally:
        until(lambda: _gone(folder), "the end of the test's cgroup")


def _gone(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def home_of(ward: Ward) -> Path:
    """Where the ward's keeper makes its groups, whether it is there or not."""
    info = ward.state.stat()
    return Path(cgroups.place().path) / f"{cgroups.PREFIX}{info.st_dev:x}-{info.st_ino:x}"


def group_of(ward: Ward, key: list[int]) -> Path:
    """An attempt's group."""
    return home_of(ward) / ".".join(map(str, key))


def in_group(group: Path) -> set[int]:
    """The processes there."""
    return {int(line) for line in (group / "cgroup.procs").read_text().split()}


def eat(bytes_: int) -> list[str]:
    """A command that takes so much memory, and then some time."""
    return [sys.executable, "-I", "-S", "-c", f"x = b'x' * {bytes_}; import time; time.sleep(600)"]


def within(folder: Path) -> list[str]:
    """What goes before a command's words to have it begin in a cgroup."""
    return ["/bin/sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$0" "$@"']
