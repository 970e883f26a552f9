"""A real farm whose slave runs frames as another user: kills, restarts, scratch directories. Needs root.

The user is one whom every system has. Who submits is mapped to a user whom only the slave sees:
its user database is this test's.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from drqueue.client import AsyncClient, JobSpec, LayerSpec
from drqueue.client.farm import LocalFarm, daemon_env
from drqueue.proto.model import NODE_HOME
from tests.e2e.helpers import a_farm, until, wait_all
from tests.slave.run_as_harness import needs_root, open_folder
from tests.slave.tree_harness import living

pytestmark = [pytest.mark.slow, needs_root]

#: A user of the system that is there everywhere, and no person.
USER = "daemon"


@pytest.fixture
def work() -> Iterator[Path]:
    """A folder that the frames' user may enter."""
    with open_folder() as folder:
        (folder / "pids").mkdir()
        (folder / "pids").chmod(0o777)
        yield folder


@asynccontextmanager
async def farm_as(tmp_path: Path, work: Path, **env: str) -> AsyncIterator[tuple[LocalFarm, AsyncClient]]:
    """A farm whose frames are that user's."""
    variables = {"DRQUEUE_RUN_AS": USER, "DRQUEUE_WORK_DIR": str(work / "scratch"), **env}
    async with a_farm(tmp_path, 1, 2, **variables) as (farm, client):
        yield farm, client


def job(text: str, cwd: str = "scratch", frames: str = "1") -> JobSpec:
    return JobSpec(name="who", layers=(LayerSpec(shell=text, frames=frames, cwd=cwd, retries=0),))


async def test_frames_are_the_users_and_leave_nothing(tmp_path: Path, work: Path) -> None:
    """Uid, capabilities, environment, directory, what is closed to them. The directory goes with it."""
    text = "id -un; id -u; pwd; stat -c '%U %a' .; echo $HOME $USER $LOGNAME"
    text += "; grep -E 'CapPrm|NoNew' /proc/self/status"
    closed = (
        f"cat {tmp_path}/farm/slave-s1/identity.json; ls {tmp_path}/farm/slave-s1; touch {work}/scratch/../x"
    )
    async with farm_as(tmp_path, work) as (_, client):
        number = await client.submit(job(f"{text}; umask; {closed}; ls -a > here"))
        view = await wait_all(client, number)
        said = (await client.read_log(number, 1)).decode().splitlines()
        assert view.counts.done == 1, said
        name, uid, place, owner, who, *rest = said
        assert (name, int(uid) > 0, owner) == (USER, True, f"{USER} 700")
        assert place == f"{work}/scratch/{number}.0.0.1" or place.startswith(f"{work}/scratch/{number}.")
        assert who.split()[1:] == [USER, USER]
        assert rest[:3] == ["CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "0022"]
        assert len([line for line in rest if "Permission denied" in line]) == 3, rest

        async def gone() -> bool:
            return not os.path.lexists(place)  # noqa: ASYNC240 - a look takes no time

        await until("the scratch directory is gone", gone)


async def test_a_frame_is_killed(tmp_path: Path, work: Path) -> None:
    async with farm_as(tmp_path, work) as (_, client):
        number = await client.submit(
            job(f"trap '' TERM; echo $$ > {work}/pids/$DRQUEUE_FRAME; sleep 600 & wait; wait")
        )
        pids = await started(work, 1)
        await client.frame_kill(number, "1")

        async def over() -> bool:
            return living(pids) == []

        await until("the frame is gone", over)
        await client.delete(number)


async def test_a_restarted_slave_takes_its_frames_up(tmp_path: Path, work: Path) -> None:
    """After kill -9 of the daemon the frame goes on, and its end is known."""
    async with farm_as(tmp_path, work) as (farm, client):
        wait = f"echo $$ > {work}/pids/$DRQUEUE_FRAME; while [ ! -e {work}/go ]; do sleep 0.05; done; exit 0"
        number = await client.submit(job(wait, frames="1"))
        pids = await started(work, 1)
        await farm.slaves[0].end(signal.SIGKILL)
        await farm.slaves[0].start()
        await farm.ready(client)
        assert living(pids) == pids
        (work / "go").touch()
        view = await wait_all(client, number)
        assert view.counts.done == 1
        assert len(await client.attempts(number, 1)) == 1


async def test_a_submitter_is_mapped(tmp_path: Path, work: Path) -> None:
    """root's job runs as the user that this node's settings say, with that user's groups and home."""
    for name, line in (("passwd", f"zoe:x:54321:54322::{work}:/bin/sh"), ("group", "zoes:x:54323:zoe")):
        there = Path("/etc", name).read_text()  # noqa: ASYNC240 - a look takes no time
        (work / name).write_text(there + line + "\n")
        (work / name).chmod(0o644)
    mount = f"mount --bind {work}/passwd /etc/passwd; mount --bind {work}/group /etc/group"
    may = await trio.run_process(["unshare", "-m", "sh", "-c", mount], capture_stderr=True, check=False)
    if may.returncode:
        pytest.skip(f"nothing can be mounted here: {may.stderr.decode()}")
    async with farm_as(tmp_path, work) as (farm, client):
        slave = farm.slaves[0]
        await slave.end()
        slave.argv = ["unshare", "-m", "sh", "-ec", f'{mount}; exec "$0" "$@"', *slave.argv]
        slave.env = {**slave.env, "DRQUEUE_MAP_USERS": "root=zoe"}
        await slave.start()
        await farm.ready(client)
        number = await client.submit(job("id -u; id -g; id -G; pwd; echo $HOME $USER; umask", cwd=NODE_HOME))
        view = await wait_all(client, number)
        said = (await client.read_log(number, 1)).decode().splitlines()
        assert view.counts.done == 1, said
        assert said[:3] == ["54321", "54322", "54322 54323"]
        assert said[3:] == [str(work), f"{work} zoe", "0022"]


async def started(work: Path, count: int) -> list[int]:
    """The process ids of frames, once so many have begun."""
    folder = work / "pids"

    async def all_there() -> bool:
        return len([path for path in folder.iterdir() if path.read_text().endswith("\n")]) == count

    await until("the frames run", all_there)
    return [int(path.read_text()) for path in folder.iterdir()]


async def test_a_slave_that_cannot_says_so(tmp_path: Path) -> None:
    """Root without another user for its frames, and a user who is none: status 2 and one sentence."""
    for name, sentence in (
        ("no-such-user", "run_as: there is no user no-such-user on this machine"),
        ("root", "run_as: frames never run as root, which is uid 0; name another user"),
    ):
        ended = await trio.run_process(
            [
                sys.executable,
                "-m",
                "drqueue.slave",
                "--state-dir",
                str(tmp_path / "s"),
                "--master",
                "unix:/no/where",
            ],
            env={**os.environ, "DRQUEUE_RUN_AS": name},
            capture_stderr=True,
            check=False,
        )
        assert ended.returncode == 2
        assert ended.stderr.decode() == f"drqueue-slave: {sentence}\n"
        assert not (tmp_path / "s").exists()


def test_a_farm_that_somebody_types_runs_frames_as_them() -> None:
    assert daemon_env({})["DRQUEUE_RUN_AS"] == "self"
    assert daemon_env({"DRQUEUE_RUN_AS": "render"})["DRQUEUE_RUN_AS"] == "render"
