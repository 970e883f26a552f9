"""Full disks, the master's or a slave's: frames go on, nothing accepted is lost, no restart is needed."""

import contextlib
import signal
from pathlib import Path

import pytest
import trio

from drqueue.client import JobSpec, LayerSpec, connect
from drqueue.client.errors import DiskFull
from tests.e2e.helpers import (
    Cli,
    a_farm,
    a_ledger_job,
    fill_up,
    lives,
    needs_tmpfs,
    small_disk,
    until,
    wait_all,
)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _tmpfs() -> None:
    needs_tmpfs()


async def test_a_full_disk_under_the_master(tmp_path: Path) -> None:
    """Reads are answered, writes refused in a sentence, frames run on; room again, and all is taken up."""
    ledger = tmp_path / "ledger"
    slave = tmp_path / "slave"
    slave.mkdir(mode=0o700)
    with small_disk(tmp_path / "farm", 4096):
        # The slave's own files lie on another disk.
        (tmp_path / "farm" / "slave-s1").symlink_to(slave)
        async with a_farm(tmp_path, slaves=1, cores=4) as (farm, client):
            cli = Cli(Path(farm.state_dir), tmp_path)
            job = await client.submit(a_ledger_job(ledger, "1-8", 1.0))

            async def some_run() -> bool:
                return (await client.job(job))[0].counts.running == 4

            await until("four frames run", some_run)
            ballast = fill_up(tmp_path / "farm")
            # Reports of frames that end cannot be written now; that raises the alarm. They are small, though,
            # and fit into what the database's log has room for from before: weight makes sure.
            env = {"WEIGHT": "x" * 60_000}
            weight = JobSpec(
                name="weight", stopped=True, env=env, layers=(LayerSpec(argv=("true",), cwd="/"),)
            )

            async def alarm() -> bool:
                # The one that meets the full disk first waits for room.
                with trio.move_on_after(0.5), contextlib.suppress(DiskFull):
                    await client.submit(weight)
                return "no space left" in (await client.farm_info()).alarm

            await until("the alarm", alarm)
            with pytest.raises(DiskFull, match="cannot write"):
                await client.submit(a_ledger_job(ledger, "1-2", 0.1))
            said = await trio.to_thread.run_sync(lambda: cli.run("submit", "--", "true", status=1))
            assert said.out == ""
            assert "no space left on the disk" in said.sentence
            with pytest.raises(DiskFull):
                await client.stop(job)
            assert (await client.job(job))[0].counts.total == 8
            assert len(await client.frames(job)) == 8

            async def four_ended() -> bool:
                return len(lives(ledger)[1]) >= 4

            await until("the running frames end well", four_ended)
            pid = farm.master.pid
            ballast.unlink()
            view = await wait_all(client, job)
            assert view.counts.done == 8
            assert farm.master.pid == pid
            assert (await client.farm_info()).alarm == ""
            await wait_all(client, await client.submit(a_ledger_job(tmp_path / "ledger2", "1-2", 0.1)))
    starts, ends, overlaps = lives(ledger)
    assert (starts, overlaps) == (dict.fromkeys(range(1, 9), 1), 0)
    assert ends == starts


async def test_what_was_accepted_before_the_disk_was_full_is_there_after_kill_9(tmp_path: Path) -> None:
    """Submit until one is refused; kill -9; no start without room; then every id given out is known."""
    slave = tmp_path / "slave"
    slave.mkdir(mode=0o700)
    with small_disk(tmp_path / "farm", 2048):
        (tmp_path / "farm" / "slave-s1").symlink_to(slave)
        async with a_farm(tmp_path, slaves=1) as (farm, client):
            await client.disable_slave("s1")
            given: list[int] = []
            ballast = fill_up(tmp_path / "farm")
            with trio.move_on_after(3):
                while True:
                    try:
                        given.append(await client.submit(a_ledger_job(tmp_path / "ledger", "1-3", 0)))
                    except DiskFull:
                        break
            await farm.master.end(signal.SIGKILL)
            cli = Cli(Path(farm.state_dir), tmp_path)
            said = await trio.to_thread.run_sync(
                lambda: cli.run("--state-dir", farm.state_dir, module="drqueue.master", status=1)
            )
            assert "no space left on" in said.sentence.lower()
            ballast.unlink()
            await farm.master.start()
            async with connect(farm.address, patience_s=10) as other:
                known = {view.id for view in await other.jobs(all=True)}
            assert known >= set(given)
            await client.enable_slave("s1")
            for job in sorted(known):
                assert (await wait_all(client, job)).counts.done == 3


async def test_a_full_disk_under_a_slave(tmp_path: Path) -> None:
    """Its spool cannot be written: it starts nothing, the farm goes on without it, and later with it."""
    ledger = tmp_path / "ledger"
    (tmp_path / "farm").mkdir(mode=0o700)
    with small_disk(tmp_path / "farm" / "slave-s1", 2048):
        async with a_farm(tmp_path, slaves=2, cores=1) as (farm, client):
            log = Path(farm.state_dir) / "slave-s1.log"
            # An order of this size does not fit into what is left of the spool's last block.
            job = await client.submit(a_ledger_job(ledger, "1-8", 0.5, env={"FILLER": "x" * 9000}))

            async def both_run() -> bool:
                return (await client.job(job))[0].counts.running == 2

            await until("both slaves render", both_run)
            held = next(view.number for view in await client.frames(job) if view.slave == "s1")
            ballast = fill_up(tmp_path / "farm" / "slave-s1")

            async def noticed() -> bool:
                return "cannot be written: frames go on" in log.read_text()

            async def others_done() -> bool:
                return sum(view.state == "DONE" for view in await client.frames(job)) == 7

            await until("the slave notices", noticed)
            await until("the other slave goes on", others_done)
            assert lives(ledger)[1][held] == 1
            (waiting,) = [view for view in await client.frames(job) if view.state != "DONE"]
            assert waiting.slave == "s1"
            assert lives(ledger)[0][waiting.number] == 0
            pid = farm.slaves[0].pid
            ballast.unlink()
            assert (await wait_all(client, job)).counts.done == 8
            assert farm.slaves[0].pid == pid
            assert "can be written again" in log.read_text()
    starts, ends, overlaps = lives(ledger)
    assert (starts, overlaps) == (dict.fromkeys(range(1, 9), 1), 0)
    assert ends == starts
