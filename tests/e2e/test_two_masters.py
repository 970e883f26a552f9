"""Two masters over copies of one state directory: they have one epoch, and give out the same names."""

import shutil
import signal
from pathlib import Path

import pytest

from drqueue.client import JobSpec, LayerSpec, connect
from tests.e2e.helpers import a_farm, until, wait_all

pytestmark = pytest.mark.slow


def says(name: str, book: Path, wait_s: float = 0) -> JobSpec:
    """A job that writes its name into the book."""
    argv = ("sh", "-c", f'sleep {wait_s}; echo {name} >> "{book}"')
    return JobSpec(name=name, layers=(LayerSpec(argv=argv, frames="1", cwd="/"),))


def put_back(copy: Path, state_dir: Path) -> None:
    for path in state_dir.iterdir():
        if path.name.startswith("master.db") or path.name == "farm.json":
            path.unlink()
    for path in copy.iterdir():
        shutil.copy(path, state_dir / path.name)


async def test_an_end_from_the_other_master_is_never_taken_for_ones_own(tmp_path: Path) -> None:
    """The copy of a whole directory, farm.json too, reaches an epoch that the original had already."""
    book, copy = tmp_path / "book", tmp_path / "copy"
    async with a_farm(tmp_path, slaves=1, cores=1) as (farm, _):
        state_dir, log = Path(farm.state_dir), Path(farm.slaves[0].log_path)
        await farm.master.end(signal.SIGTERM)
        copy.mkdir()
        for name in ("master.db", "farm.json"):
            shutil.copy(state_dir / name, copy / name)
        await farm.master.start()
        async with connect(farm.address, patience_s=20) as client:
            first = await client.submit(says("first", book, 1))

            async def runs() -> bool:
                return (await client.job(first))[0].counts.running == 1

            await until("the first job runs", runs)
        await farm.master.end(signal.SIGKILL)

        async def ended() -> bool:
            return book.exists()

        await until("its frame ended, and nobody was told", ended)
        put_back(copy, state_dir)
        await farm.master.start()
        async with connect(farm.address, patience_s=20) as client:
            second = await client.submit(says("second", book))
            assert second == first

            async def refused() -> bool:
                return "another master had epoch" in log.read_text()  # noqa: ASYNC240 - a few lines

            await until("the slave refuses the copy", refused)
            assert (await client.job(second))[0].counts.waiting == 1
        await farm.master.end(signal.SIGTERM)
        # Started anew it has an epoch that nobody had.
        await farm.master.start()
        async with connect(farm.address, patience_s=20) as client:
            view = await wait_all(client, second, 30)
            assert view.counts.done == 1
        assert book.read_text().split() == ["first", "second"]
