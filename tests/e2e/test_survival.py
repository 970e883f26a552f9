"""kill -9 and restart of either daemon in mid-render: every frame DONE, each started exactly once."""

import signal
from pathlib import Path

import pytest

from drqueue.client import AsyncClient
from tests.e2e.helpers import a_farm, a_ledger_job, lives, until, wait_all

pytestmark = pytest.mark.slow
FRAMES = 12


async def some_run(client: AsyncClient, job: int) -> bool:
    """Some frames are done, some run, some wait: the middle of a render."""
    counts = (await client.job(job))[0].counts
    return counts.done >= 2 and counts.running >= 2 and counts.waiting >= 2


def assert_each_lived_once(ledger: Path) -> None:
    """The frames' own account: one life each, none twice at a time."""
    starts, ends, overlaps = lives(ledger)
    assert overlaps == 0
    assert starts == dict.fromkeys(range(1, FRAMES + 1), 1)
    assert ends == starts


def release(ledger: Path) -> None:
    """Let the frames that hold end."""
    ledger.with_name(f"{ledger.name}.go").touch()


async def test_killed_master_loses_nothing_and_runs_nothing_twice(tmp_path: Path) -> None:
    """The master dies of kill -9 twice in mid-render; frames run on, end meanwhile, and are counted once."""
    ledger = tmp_path / "ledger"
    async with a_farm(tmp_path) as (farm, client):
        job = await client.submit(a_ledger_job(ledger, f"1-{FRAMES}", "hold"))
        await until("the middle of the render", lambda: some_run(client, job))
        await farm.master.end(signal.SIGKILL)
        await farm.master.start()
        await until("the middle of the render, again", lambda: some_run(client, job))
        await farm.master.end(signal.SIGKILL)
        release(ledger)
        await farm.master.start()
        view = await wait_all(client, job)
        assert view.counts.done == FRAMES
    assert_each_lived_once(ledger)


async def test_killed_slave_daemon_takes_its_frames_up_again(tmp_path: Path) -> None:
    """Slave daemons die of kill -9 while their frames run; the next ones adopt them, exits and all."""
    ledger = tmp_path / "ledger"
    async with a_farm(tmp_path) as (farm, client):
        job = await client.submit(a_ledger_job(ledger, f"1-{FRAMES}", "hold"))
        await until("the middle of the render", lambda: some_run(client, job))
        first, second = farm.slaves
        await first.end(signal.SIGKILL)
        await first.start()
        await second.end(signal.SIGKILL)
        release(ledger)
        await second.start()
        view = await wait_all(client, job)
        assert view.counts.done == FRAMES
        logs = [await client.read_log(job, number) for number in range(1, FRAMES + 1)]
    assert_each_lived_once(ledger)
    assert [log.decode().strip() for log in logs] == [f"frame {n} lives" for n in range(1, FRAMES + 1)]


async def test_exits_while_everything_is_down_are_not_lost(tmp_path: Path) -> None:
    """Frames that end while master and slave daemons are dead are DONE (or FAILED) once both are back."""
    ledger = tmp_path / "ledger"
    async with a_farm(tmp_path, slaves=1, cores=4) as (farm, client):
        job = await client.submit(a_ledger_job(ledger, "3-6", "hold"))

        async def all_run() -> bool:
            return (await client.job(job))[0].counts.running == 4

        async def all_ended() -> bool:
            return len(lives(ledger)[1]) == 4

        await until("four frames run", all_run)
        await farm.slaves[0].end(signal.SIGKILL)
        await farm.master.end(signal.SIGKILL)
        release(ledger)
        await until("four frames ended", all_ended)
        await farm.master.start()
        await farm.slaves[0].start()
        view = await wait_all(client, job)
        assert view.counts.done == 4
        attempts = [await client.attempts(job, number) for number in range(3, 7)]
    assert [len(tries) for tries in attempts] == [1, 1, 1, 1]
    assert lives(ledger)[0] == dict.fromkeys(range(3, 7), 1)


async def test_graceful_restarts_lose_nothing(tmp_path: Path) -> None:
    """TERM and restart of the master, as an upgrade does it."""
    ledger = tmp_path / "ledger"
    async with a_farm(tmp_path) as (farm, client):
        job = await client.submit(a_ledger_job(ledger, f"1-{FRAMES}", "hold"))
        await until("the middle of the render", lambda: some_run(client, job))
        assert await farm.master.end(signal.SIGTERM) == 0
        release(ledger)
        await farm.master.start()
        assert (await wait_all(client, job)).counts.done == FRAMES
    assert_each_lived_once(ledger)
