"""The table of calls, walked over a real farm: a master, a slave, and a process for every frame."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import drqueue
from tests.binding.farm import GATED, C, Farm, Gates, a_farm, clear, sent
from tests.binding.verbs import load
from tests.binding.walk import walk
from tests.e2e.helpers import wait_until

pytestmark = pytest.mark.slow
VERBS = {verb.name: verb for verb in load()}
#: Frames that may run at a time: all those of a walk.
CORES = 100


class RealWorld:
    """A real farm with one slave; every run is a shell that waits at its gate."""

    still = False
    first_slave = "s1"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._gates: dict[int, Gates] = {}

    def send(self) -> drqueue.job:
        gates = Gates(self._folder / f"gates-{len(self._gates)}", (1, 2, 3))
        job = drqueue.job()
        job.name, job.cmd, job.frame_end = "job", GATED, 2
        job.environment_variable_add("GATES", str(gates.folder))
        self._gates[sent(job).id] = gates
        return job

    def hold(self) -> None:
        assert drqueue.request_slave_limits_enabled_set(self.first_slave, 0, C) == 1
        self.until("the master knows", lambda: not drqueue.request_computer_list(C)[0].limits.enabled)

    def end(self, job: drqueue.job, number: int) -> None:
        self._gates[job.id].end(number)

    def end_killed(self, job: drqueue.job, number: int) -> None:
        """Those that were killed end by themselves."""

    def killed(self, job: drqueue.job, number: int) -> bool:
        return True

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        wait_until(what, holds)

    def close(self) -> None:
        clear()
        assert drqueue.request_slave_limits_enabled_set(self.first_slave, 1, C) == 1
        self.until("the master knows", lambda: bool(drqueue.request_computer_list(C)[0].limits.enabled))
        for gates in self._gates.values():
            gates.close()


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with a_farm(tmp_path_factory.mktemp("verbs") / "farm", ["s1"], CORES) as farm:
        yield farm


@pytest.fixture
def world(farm: Farm, tmp_path: Path) -> Iterator[RealWorld]:
    world = RealWorld(tmp_path)
    yield world
    world.close()


@pytest.mark.parametrize(
    "names",
    [
        ("stop", "hard stop", "continue"),
        ("rerun", "delete", "new range that holds the frame"),
        ("frame waiting", "frame kill", "frame finish"),
        ("frame kill finish", "reset requeued", "new range without the frame"),
    ],
    ids=" + ".join,
)
def test_real_frames_do_what_the_table_says(world: RealWorld, names: tuple[str, ...]) -> None:
    walk(world, [VERBS[name] for name in names])
