"""F10: a slave's disk is full, of others' files or of its frames' logs; logs that are huge or no text."""

import sys
from functools import partial
from pathlib import Path

import pytest
import trio
from msgspec import structs

from drqueue.client import AsyncClient, JobSpec, LayerSpec
from drqueue.client.farm import Daemon
from drqueue.proto.views import FrameView
from drqueue.slave.logs import KEEP
from tests.e2e.helpers import fill_up, needs_tmpfs, small_disk, until
from tests.faults import flood, levels
from tests.faults.farm import PATIENCE_S, Sayings, a_farm_at_work, keeper_of, kill
from tests.faults.oracle import Oracle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(levels.timeout_s())]

MEGABYTE = 1 << 20
FULL = "cannot be written: frames go on"
ROOM = "can be written again"
LEFT_OUT = b" bytes left out "


class Heavy(Oracle):
    """Its orders do not fit into what is left of a block of the spool."""

    def spec(self, frames: str, *, stopped: bool = False) -> JobSpec:
        return structs.replace(super().spec(frames, stopped=stopped), env={"FILLER": "x" * 9000})


async def has_keeper(daemon: Daemon) -> bool:
    try:
        return keeper_of(daemon) > 0
    except ProcessLookupError:
        return False


async def test_f10_full_spool(tmp_path: Path) -> None:
    """I2-I4, P1: what ends while nothing can be written down ends once, and is told once there is room."""
    needs_tmpfs()
    rng = levels.rng("F10-spool")
    fills = levels.count("F10-spool", ci=2, nightly=30, release=200)
    folder = tmp_path / "farm" / "slave-s1"
    folder.parent.mkdir(mode=0o700)
    (tmp_path / "logs").mkdir()
    with small_disk(folder, 4096):
        # What frames print themselves has room.
        (folder / "logs").symlink_to(tmp_path / "logs")
        async with a_farm_at_work(tmp_path, rng, cores=2) as (farm, client, _):
            oracle = Heavy(tmp_path / "heavy", client, rng)
            daemon = farm.slaves[0]
            async with trio.open_nursery() as feeding:
                feeding.start_soon(partial(oracle.feed, live=6))
                # None can be started on a full disk.
                await until("a keeper", partial(has_keeper, daemon))
                for nth in range(fills):
                    await trio.sleep(rng.uniform(0, 0.5))
                    sayings = Sayings(daemon)
                    ballast = fill_up(folder)
                    await sayings.come(FULL)
                    await trio.sleep(rng.uniform(0, 0.7))
                    if nth % 2:
                        # What it could not write down, it has done nothing about.
                        await kill(daemon)
                        ballast.unlink()
                        await daemon.start()
                        await sayings.come("linked to the master")
                    else:
                        pid = daemon.pid
                        ballast.unlink()
                        await sayings.come(ROOM)
                        assert daemon.pid == pid
                feeding.cancel_scope.cancel()
            assert await oracle.violations(logs=30) == []


def kept_kb(pid: int) -> int:
    """The memory that a process holds now (KB)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError


def on_disk(slave: Daemon, job: int) -> int:
    """What the logs of a job take on a slave's disk (bytes)."""
    return sum(path.stat().st_blocks * 512 for path in Path(slave.state_dir, "logs", str(job)).iterdir())


async def flooded(client: AsyncClient, *words: object) -> FrameView:
    """A frame that floods, once it is over."""
    argv = (sys.executable, "-I", "-S", flood.__file__, *map(str, words))
    layer = LayerSpec(argv=argv, cwd="/", retries=0)
    job = await client.submit(JobSpec(name="flood", layers=(layer,)))
    with trio.fail_after(PATIENCE_S + 600 * (levels.level() != "ci")):
        await client.wait([job])
    (frame,) = await client.frames(job)
    return frame


def check_ends(log: bytes, kind: str, keep: int) -> None:
    """Both ends are what was written, and a line between them says that something is not there."""
    head, left_out, tail = log.partition(LEFT_OUT)
    assert left_out, f"{kind}: nothing is left out of {len(log)} bytes"
    assert head[:keep] == (flood.HEAD + flood.BLOCKS[kind])[:keep], kind
    assert tail[-keep:] == (flood.BLOCKS[kind] + flood.TAIL)[-keep:], kind


async def test_f10_floods_of_log(tmp_path: Path) -> None:
    """I2, I14: the result comes, both ends of the log are kept, disk and memory are spared."""
    rng = levels.rng("F10-floods")
    floods = levels.count("F10-floods", ci=5, nightly=20, release=100)
    megabytes = {"ci": 24, "nightly": 1024, "release": 1024}[levels.level()]
    async with a_farm_at_work(tmp_path, rng, slaves=1, cores=2, DRQUEUE_LOG_CAP_MB="1") as (farm, client, _):
        (slave,) = farm.slaves
        assert (await flooded(client, "lines", 1, 0)).state == "DONE"
        pids = farm.master.pid, slave.pid, keeper_of(slave)
        before = [kept_kb(pid) for pid in pids]
        frames: dict[str, FrameView] = {}
        kinds = sorted(flood.BLOCKS)
        for nth in range(floods):
            kind, code = kinds[nth % len(kinds)], rng.randrange(1, 200)
            frame = frames[kind] = await flooded(client, kind, megabytes, code)
            assert (frame.state, frame.code, frame.reason) == ("FAILED", code, ""), frame
            log = await client.read_log(frame.job, 1)
            assert len(log) < 1.1 * MEGABYTE
            check_ends(log, kind, 2 * KEEP)
            (attempt,) = await client.attempts(frame.job, 1)
            assert attempt.log_bytes >= megabytes * MEGABYTE
            assert on_disk(slave, frame.job) <= 1.1 * MEGABYTE
        grown = [kept_kb(pid) - was for pid, was in zip(pids, before, strict=True)]
        print(f"grown by {grown} KB")
        assert max(grown) <= 10 * 1024
        # What the master keeps of each does not need the slave.
        await slave.end()
        for kind, frame in frames.items():
            check_ends(await client.read_log(frame.job, 1), kind, KEEP)


async def test_f10_logs_fill_the_disk(tmp_path: Path) -> None:
    """I2-I4: frames that write faster than their logs can be cut fill the disk, and nobody need make room."""
    needs_tmpfs()
    rng = levels.rng("F10-logs")
    floods = levels.count("F10-logs", ci=2, nightly=30, release=200)
    folder = tmp_path / "farm" / "slave-s1"
    folder.parent.mkdir(mode=0o700)
    with small_disk(folder, 6144):
        async with a_farm_at_work(tmp_path, rng, slaves=1, DRQUEUE_LOG_CAP_MB="1") as (farm, client, _):
            (slave,) = farm.slaves
            pid = slave.pid
            for nth in range(floods):
                kind, code = rng.choice(sorted(flood.BLOCKS)), rng.randrange(1, 200)
                lost = tmp_path / f"lost-{nth}"
                frame = await flooded(client, kind, 12, code, rng.uniform(0, 1), lost)
                assert lost.stat().st_size > 0
                assert (frame.state, frame.code, frame.reason) == ("FAILED", code, ""), frame
                check_ends(await client.read_log(frame.job, 1), kind, flood.SIZE // 2)
                await client.delete(frame.job)
            assert slave.pid == pid
