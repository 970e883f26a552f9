"""A wall clock that jumps by a day, forth and back, in mid-render: no frame is lost, ended or repeated."""

import sys
from pathlib import Path

import pytest

from drqueue.client import AsyncClient
from tests.e2e.helpers import a_farm, a_ledger_job, lives, until, wait_all

pytestmark = pytest.mark.slow
CLOCK = Path(__file__).with_name("jumping_clock.py")
DAY_S = 86400
FRAMES = 10


async def test_a_clock_that_jumps_changes_no_frames_fate(tmp_path: Path) -> None:
    """The master's and the slaves' clock, ten days forth and twenty back, while a time limit runs."""
    ledger, offset = tmp_path / "ledger", tmp_path / "offset"
    offset.write_text("0")
    async with a_farm(tmp_path) as (farm, client):
        for daemon in farm.daemons:
            await daemon.end()
            module = daemon.argv.index("-m") + 1
            daemon.argv = [sys.executable, str(CLOCK), str(offset), *daemon.argv[module:]]
            await daemon.start()

        async def linked() -> bool:
            return all(view.linked for view in await client.slaves())

        await until("the slaves are back", linked)
        job = await client.submit(a_ledger_job(ledger, f"1-{FRAMES}", 0.6, timeout_s=20))
        for at_least, days in ((1, 10), (4, -20)):
            await until(f"{at_least} frames done", lambda done=at_least: some_done(client, job, done))
            # In one write: whoever reads meanwhile must find a number.
            new = tmp_path / "offset.new"
            new.write_text(str(days * DAY_S))
            new.rename(offset)
        view = await wait_all(client, job)
        assert view.counts.done == FRAMES
        assert view.state == "FINISHED"
        frames = await client.frames(job)
        # Nobody waits ten days for the next job.
        await wait_all(client, await client.submit(a_ledger_job(tmp_path / "ledger2", "1-2", 0.1)))
    starts, ends, overlaps = lives(ledger)
    assert (starts, overlaps) == (dict.fromkeys(range(1, FRAMES + 1), 1), 0)
    assert ends == starts
    assert {(frame.attempt, frame.requeued) for frame in frames} == {(1, 0)}


async def some_done(client: AsyncClient, job: int, done: int) -> bool:
    """Whether that many frames are done."""
    return (await client.job(job))[0].counts.done >= done
