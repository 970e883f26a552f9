"""F17: daemons of several versions in one farm, up and back, and migrations that are killed half-way."""

import shutil
import signal
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random

import msgspec
import pytest
import trio

import drqueue
from drqueue.client import AsyncClient
from drqueue.client.farm import Daemon, LocalFarm
from drqueue.master.storage.migrations import MIGRATIONS, REST_6
from drqueue.master.storage.restoring import restore
from drqueue.master.storage.rows import REST_FIELDS
from drqueue.master.storage.sums import TABLES
from tests.e2e.helpers import until
from tests.faults import levels
from tests.faults.farm import PATIENCE_S, Sayings, a_farm_at_work, ended, kill, linked, start_with

pytestmark = [pytest.mark.slow, pytest.mark.timeout(levels.timeout_s())]

NEWER = "99.0"
#: What the newer version's tables have more, in as many steps.
NEXT_MIGRATION = (
    "CREATE TABLE note (job INTEGER PRIMARY KEY) STRICT",
    "INSERT INTO note SELECT id FROM job",
    "CREATE INDEX job_user ON job (user)",
)


def install(folder: Path, version: str, migration: tuple[str, ...] = ()) -> Path:
    """The package as another version, whose database has one migration more where one is given."""
    package = folder / "drqueue"
    shutil.copytree(Path(drqueue.__file__).parent, package)
    init = package / "__init__.py"
    text = init.read_text().replace(f'"{drqueue.__version__}"', f'"{version}"')
    assert version in text
    init.write_text(text)
    if migration:
        with (package / "master/storage/migrations.py").open("a") as file:
            file.write(f"\nMIGRATIONS = (*MIGRATIONS, {migration!r})\n")
    return folder


def run_from(daemon: Daemon, folder: Path | None) -> None:
    """From its next start on a daemon is the version that is installed there, or this one again."""
    python, *options = [word for word in daemon.argv if word != "-P"]
    # What lies in the working directory would be found first.
    daemon.argv = [python, "-P", *options] if folder else [python, *options]
    others = {name: value for name, value in daemon.env.items() if name != "PYTHONPATH"}
    daemon.env = {**others, "PYTHONPATH": str(folder)} if folder else others


def outlive(daemon: Daemon) -> None:
    """A slave's frames go on when it is told to end."""
    daemon.argv = [word for word in daemon.argv if word != "--kill-frames-on-exit"]


async def test_f17_i2_i4_a_rolling_upgrade_and_back_loses_no_frame(tmp_path: Path) -> None:
    """One daemon after another, in any order, stopped well or killed: versions are mixed for a while."""
    rng = levels.rng("F17")
    times = levels.count("F17", ci=4, nightly=200, release=500)
    folder = install(tmp_path / NEWER, NEWER)
    slaves = {"ci": 1, "nightly": 3, "release": 8}[levels.level()]
    async with a_farm_at_work(tmp_path, rng, slaves=slaves, cores=2, most_s=0.6) as (farm, client, oracle):
        newer: set[str] = set()
        order: list[Daemon] = []
        for daemon in farm.slaves:
            outlive(daemon)
        try:
            async with trio.open_nursery() as feeding:
                feeding.start_soon(partial(oracle.feed, live=5, frames=4))
                for _ in range(times):
                    order = order or rng.sample(farm.daemons, len(farm.daemons))
                    daemon = order.pop()
                    await daemon.end(rng.choice((signal.SIGTERM, signal.SIGKILL)))
                    newer ^= {daemon.name}
                    run_from(daemon, folder if daemon.name in newer else None)
                    sayings = Sayings(daemon)
                    await daemon.start()
                    if daemon is farm.master:
                        version = NEWER if daemon.name in newer else drqueue.__version__
                        assert (await client.farm_info()).software == f"drqueue {version}"
                    else:
                        await sayings.come("linked to the master")
                    await trio.sleep(rng.uniform(0, 0.3))
                feeding.cancel_scope.cancel()
            assert await oracle.violations() == []
        finally:
            with trio.CancelScope(shield=True):
                for daemon in farm.slaves:
                    await kill(daemon)


# -- migrations --------------------------------------------------------------------------------------------


def make_version_6(state_dir: Path) -> None:
    """What a master that is gone left, as version 6 of the tables would have had it."""
    with closing(sqlite3.connect(state_dir / "master.db", isolation_level=None)) as old:
        old.execute("BEGIN")
        names = [*(set(REST_6) - set(REST_FIELDS)), "rest"]
        rows = old.execute(f"SELECT {', '.join(names)} FROM attempt").fetchall()
        for row in rows:
            *columns, rest = row
            values = dict(zip(names, columns, strict=False))
            values |= zip(REST_FIELDS, msgspec.msgpack.decode(rest), strict=False)
            packed = msgspec.msgpack.encode([values[name] for name in REST_6 if name in values])
            key = {name: values[name] for name in ("job", "layer", "number", "attempt")}
            where = " AND ".join(f"{name} = :{name}" for name in key)
            old.execute(f"UPDATE attempt SET rest = :rest WHERE {where}", {"rest": packed, **key})
        for table in TABLES:
            old.execute(f"ALTER TABLE {table} DROP COLUMN crc")
        old.execute("PRAGMA user_version = 6")
        old.execute("COMMIT")
        old.execute("PRAGMA journal_mode = DELETE")
    (state_dir / "master.open").unlink(missing_ok=True)  # it left no such note


def version_of(state_dir: Path) -> int:
    """That of the tables of a master that was killed, looked at in a copy."""
    looked_at = state_dir / "looked-at"
    looked_at.mkdir()
    try:
        for path in state_dir.glob("master.db*"):
            if path.name in ("master.db", "master.db-wal", "master.db-journal"):
                shutil.copy(path, looked_at)
        with closing(sqlite3.connect(looked_at / "master.db")) as copy:
            return int(copy.execute("PRAGMA user_version").fetchone()[0])
    finally:
        shutil.rmtree(looked_at)


async def killed_within(master: Daemon, rng: Random, times: int, steps: int, version: int) -> None:
    """Let a migration begin so often, and be killed at one of its steps; the tables stay of that version."""
    points = ["backup-rename=kill", f"migration-step=kill@{steps}", "migration-step=kill"]
    for number in range(times):
        at = points[number] if number < len(points) else f"migration-step=kill@{rng.randint(1, steps)}"
        sayings = Sayings(master)
        await start_with(master, at)
        assert await ended(master) == -signal.SIGKILL
        assert f"failpoint {at.partition('=')[0]}: kill" in sayings
        assert version_of(Path(master.state_dir)) == version


async def test_f17_i1_i2_a_migration_killed_half_way_is_done_by_the_next_start(tmp_path: Path) -> None:
    """Frames run and end meanwhile. A newer version's tables are refused by this one, in a sentence, until
    the copy that was made before is restored."""
    rng = levels.rng("F17-migration")
    times = levels.count("F17-migration", ci=4, nightly=200, release=500)
    async with a_farm_at_work(tmp_path, rng, slaves=1, most_s=0.6) as (farm, client, oracle):
        async with trio.open_nursery() as feeding:
            feeding.start_soon(partial(oracle.feed, live=5, frames=4))
            await oracle.submit(20)
            await until("frames end", partial(_some_ended, farm, client), PATIENCE_S)
            feeding.cancel_scope.cancel()
        await farm.master.end(rng.choice((signal.SIGTERM, signal.SIGKILL)))
        make_version_6(Path(farm.state_dir))
        await killed_within(farm.master, rng, times, len(MIGRATIONS[6]), 6)
        await farm.master.start()
        await linked(client, 1)
        assert await oracle.violations() == []

        paper = await client.submit(oracle.spec("1-3", stopped=True))
        await kill(farm.master)
        run_from(farm.master, install(tmp_path / NEWER, NEWER, NEXT_MIGRATION))
        await killed_within(farm.master, rng, times // 4, len(NEXT_MIGRATION), len(MIGRATIONS))
        await farm.master.start()
        assert (await client.farm_info()).software == f"drqueue {NEWER}"
        await oracle.submit(5)
        assert await oracle.violations() == []
        await farm.master.end()
        assert version_of(Path(farm.state_dir)) == len(MIGRATIONS) + 1
        await back_again(farm, client)
        await client.continue_(paper)
        await client.resume_farm()
        assert (await client.wait([paper]))[0].counts.done == 3


async def _some_ended(farm: LocalFarm, client: AsyncClient) -> bool:
    return any(view.counts.done and view.counts.running for view in await client.jobs())


async def back_again(farm: LocalFarm, client: AsyncClient) -> None:
    """This version over a newer one's state: refused, and started once what was before is restored."""
    run_from(farm.master, None)
    sayings = Sayings(farm.master)
    await farm.master.start()
    farm.master.wanted = False
    assert await ended(farm.master) == 1
    before = f"{farm.state_dir}/master.db.before-{len(MIGRATIONS) + 1}"
    assert f"was written by a newer DrQueue (its tables are of version {len(MIGRATIONS) + 1}" in sayings
    assert f"update, or restore {before}" in sayings
    restore(farm.state_dir, before)
    await farm.master.start()
    assert (await client.farm_info()).software == f"drqueue {drqueue.__version__}"
    await linked(client, 1)
