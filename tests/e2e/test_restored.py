"""The master's database is restored from a backup while slaves run what began since (F16, I3)."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from msgspec import structs

from drqueue.client import AsyncClient, connect
from drqueue.client.farm import LocalFarm
from tests.e2e.helpers import a_farm, a_ledger_job, lives, until, wait_all

pytestmark = pytest.mark.slow
DAY_S = 86400


async def backed_up(farm: LocalFarm) -> Path:
    """A backup, made now."""
    folder = Path(farm.state_dir) / "backups"
    os.kill(farm.master.pid, signal.SIGUSR1)

    async def made() -> bool:
        return any(folder.glob("master-*.db"))

    await until("the backup is made", made)
    (backup,) = folder.glob("master-*.db")
    return backup


def put_back(farm: LocalFarm, backup: Path) -> None:
    for path in Path(farm.state_dir).glob("master.db*"):
        path.unlink()
    shutil.copy(backup, Path(farm.state_dir) / "master.db")


def let_them_end(ledger: Path) -> None:
    Path(f"{ledger}.go").touch()


async def linked(client: AsyncClient, name: str) -> None:
    """Return once that slave is linked."""

    async def is_linked() -> bool:
        return any(view.linked and view.name == name for view in await client.slaves())

    await until(f"slave {name} is linked", is_linked)


def granted(farm: LocalFarm) -> float:
    return float(json.loads((Path(farm.state_dir) / "farm.json").read_text())["granted_s"])


async def test_f16_i3_no_frame_begun_since_the_backup_runs_twice(tmp_path: Path) -> None:
    """One slave links at once, one is away for a while; an operator vouches once both are there."""
    ledger = tmp_path / "ledger"
    async with a_farm(tmp_path, cores=1) as (farm, client):
        spec = structs.replace(a_ledger_job(ledger, "3-4", "hold"), stopped=True)
        job = await client.submit(spec)
        backup = await backed_up(farm)
        await client.continue_(job)

        async def both_run() -> bool:
            return lives(ledger)[0] == {3: 1, 4: 1}

        await until("both frames run", both_run)
        away = farm.slaves[1]
        await away.end(signal.SIGKILL)
        await farm.master.end(signal.SIGTERM)
        assert granted(farm) == DAY_S
        put_back(farm, backup)
        started = time.time()
        await farm.master.start()
        async with connect(farm.address, patience_s=20) as again:
            await again.continue_(job)
            await linked(again, "s1")
            new = await again.submit(a_ledger_job(tmp_path / "new", "1", 0))
            assert (await wait_all(again, new)).counts.done == 1
            held = (await again.farm_info()).holdback
            assert held is not None
            assert (held.jobs, held.for_operator, held.slaves_away) == (1, 0, 1)
            assert held.until_at - started == pytest.approx(DAY_S * 1.01 + 120, abs=60)
            assert [reason.code for reason in await again.why(job)] == ["restored"]
            await away.start()
            await linked(again, "s2")

            async def both_stopped() -> bool:
                return "being stopped" not in (await again.why(job))[0].text

            await until("what began since is over", both_stopped)
            assert lives(ledger)[0] == {3: 1, 4: 1}
            let_them_end(ledger)
            assert (await again.resume_farm()).count == 1
            assert (await wait_all(again, job)).counts.done == 2
            assert (await again.farm_info()).holdback is None

            async def forgotten() -> bool:
                return granted(farm) == 0

            await until("nobody counts on the grant", forgotten)
    assert lives(ledger) == ({3: 2, 4: 2}, {3: 1, 4: 1}, 0)
