"""Frames that write nothing: their logs are empty for whoever asks, though there may be no file of them."""

import os
from pathlib import Path

import pytest

from drqueue.client import JobSpec, LayerSpec
from tests.e2e.helpers import a_farm

pytestmark = pytest.mark.slow

FRAMES = 20
#: The last one says something.
SCRIPT = f"[ $DRQUEUE_FRAME -lt {FRAMES} ] || echo done"


def quiet_job() -> JobSpec:
    return JobSpec(name="quiet", layers=(LayerSpec(shell=SCRIPT, frames=f"1-{FRAMES}", cwd="/"),))


async def test_every_log_can_be_read_and_few_files_are_made(tmp_path: Path) -> None:
    async with a_farm(tmp_path, slaves=1, cores=2) as (farm, client):
        job = await client.submit(quiet_job())
        (view,) = await client.wait([job])
        assert view.counts.done == FRAMES
        for number in range(1, FRAMES + 1):
            said = await client.read_log(job, number)
            assert said == (b"done\n" if number == FRAMES else b""), number
        files = os.listdir(os.path.join(farm.slaves[0].state_dir, "logs", str(job)))
        assert len(files) <= 4


async def test_where_logs_are_copied_there_is_one_for_every_frame(tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    async with a_farm(tmp_path, slaves=1, cores=2, DRQUEUE_LOGS=str(copies)) as (farm, client):
        job = await client.submit(quiet_job())
        await client.wait([job])
        files = os.listdir(os.path.join(farm.slaves[0].state_dir, "logs", str(job)))
        assert len(files) == FRAMES
