"""What views say of resources, limits, users and what is wrong: of jobs, layers, slaves, frames, the farm."""

import pytest

from drqueue.master.past import attempt_view
from drqueue.proto.messages import Farm, FarmInfo, ListFrames
from drqueue.proto.model import Gpu, LayerDepend, MachineInfo, Needs, Offers
from drqueue.proto.roles import Who
from tests.builders import WALL, CoreFarm, a_job, a_layer, badly

SUE = Who(name="sue", role="supervisor", peer="uid 1003")
MACHINE = MachineInfo(
    hostname="s1", os="linux", gpus=tuple(Gpu(index, "gpu", 8000) for index in range(3)), boot_id="b"
)
OFFERS = Offers(gpus=(0, 2), disk_mb=1000, amounts={"tapes": 2}, tags=("fast",))
NEEDS = Needs(cores=0.5, memory_mb=100, gpus=1, disk_mb=300, amounts={"tapes": 0.5})


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm()


def test_a_slave_shows_what_it_offers_and_what_is_taken(farm: CoreFarm) -> None:
    link = farm.link(machine=MACHINE, offers=OFFERS)
    farm.submit(a_job("1-3", layer={"needs": NEEDS}))
    view = farm.slave()
    assert view.offers == OFFERS
    assert (view.cores_used, view.memory_used_mb, view.disk_used_mb) == (1, 200, 600)
    assert (view.gpus_used, view.amounts_used) == ((0, 2), {"tapes": 1})
    assert sorted(frame.gpus for frame in view.running) == [(0,), (2,)]
    farm.render_all(link)
    view = farm.slave()
    assert (view.cores_used, view.gpus_used, view.disk_used_mb, view.amounts_used) == (0, (), 0, {})


def test_a_fraction_of_a_core_is_shown_as_such(farm: CoreFarm) -> None:
    farm.link()
    farm.submit(a_job("1", layer={"needs": Needs(cores=0.5)}))
    answer = farm.ask(FarmInfo(rq=0))
    assert isinstance(answer, Farm)
    assert (farm.slave().cores_used, answer.cores_used, answer.cores) == (0.5, 0.5, 4)


def test_attempts_show_since_when_they_might_have_run_and_what_they_had(farm: CoreFarm) -> None:
    farm.submit(a_job("1", layer={"needs": NEEDS}))
    farm.wait(70)
    link = farm.link(machine=MACHINE, offers=OFFERS)
    farm.exited(link, farm.order(link).key)
    (row,) = farm.storage.attempts(0, 0, 1)
    view = attempt_view(row)
    assert (view.eligible_at, view.assigned_at) == (WALL + 100, WALL + 170)
    assert (view.cores, view.memory_mb, view.gpus) == (0.5, 100, (0,))


def test_a_job_shows_for_whom_it_runs_and_why_it_stopped(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit_as(SUE, a_job("1-9", owner="anna", max_failures=2))
    farm.fail_all(link, badly(code=3))
    view = farm.job()
    assert (view.submitter, view.user, view.max_failures) == ("sue", "anna", 2)
    assert view.failures >= 2
    assert view.state in ("STOPPED", "ACTIVE")
    assert view.stopped_for.startswith("2 attempts failed, and max_failures is 2; the last: frame ")
    farm.verb(0, "continue")
    assert (farm.job().failures, farm.job().stopped_for) == (0, "")


def test_a_layer_shows_what_its_frames_wait_for_take_and_how_they_are_ordered(farm: CoreFarm) -> None:
    depends = (LayerDepend(layer="sim", frames="each"),)
    layers = (
        a_layer("1-4", name="sim"),
        a_layer("1-4", name="render", depends=depends, order="reverse", next="2", limits={"nuke": 1}),
    )
    farm.submit(a_job(layers=layers))
    view = farm.layers()[1]
    assert (view.depends, view.order, view.next, view.limits) == (depends, "reverse", "2", {"nuke": 1})


def test_frames_that_are_held_are_blocked_one_by_one(farm: CoreFarm) -> None:
    """Those whose own dependency is met wait, the others are BLOCKED, and counted so in pictures, too."""
    link = farm.link(cores=1)
    layers = (
        a_layer("1-4", name="sim"),
        a_layer("1-4", name="render", chunk=2, depends=(LayerDepend(layer="sim", frames="each"),)),
    )
    farm.submit(a_job(layers=layers))
    assert set(farm.states(layer="render").values()) == {"BLOCKED"}
    counts = farm.layers()[1].counts
    assert (counts.blocked, counts.waiting, counts.total) == (4, 0, 4)
    farm.verb(0, "stop")
    for number in (1, 2):
        farm.frame(0, "finish", str(number), layer="sim")
    for key in list(farm.core.state.attempts):
        farm.exited(link, key)
    assert farm.states(layer="render") == {1: "WAITING", 3: "BLOCKED"}
    view = farm.layers()[1]
    assert (view.counts.waiting, view.counts.blocked) == (2, 2)
    assert (view.chunk_counts.waiting, view.chunk_counts.blocked) == (1, 1)
    shown = farm.ask(ListFrames(rq=0, job=0, layer="render", states=("BLOCKED",)))
    assert [frame.number for frame in shown.frames] == [3]  # type: ignore[attr-defined]
    answer = farm.ask(FarmInfo(rq=0))
    assert isinstance(answer, Farm)
    assert answer.frames_waiting == 4, "two of each layer"
