"""Layers that wait for layers: frame by frame, for a part, for the frame before; in a job and across jobs."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.master.core.depends import frame_waits, progress
from drqueue.master.core.gates import between, gaps, joined, shift, spread, without
from drqueue.proto.intervals import IntervalSet
from drqueue.proto.link_messages import Held
from drqueue.proto.model import Depend, JobSpec, LayerDepend, LayerSpec
from drqueue.proto.ranges import Chunks, FrameRange
from drqueue.proto.rules import frames_wanted
from tests.builders import WALL, CoreFarm, a_job, a_layer, badly, well

BRIEF = well(ended_at=WALL + 0.1)


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm()


def each(offset: int = 0, layer: str = "sim", **fields: Any) -> LayerDepend:
    return LayerDepend(layer=layer, frames="each", offset=offset, **fields)


def two(one: str, other: str, *depends: LayerDepend, chunk: int = 1, **fields: Any) -> JobSpec:
    """A job of two layers, `sim` and `comp`, which waits for the former in these ways."""
    layers = (a_layer(one, name="sim", **fields), a_layer(other, name="comp", chunk=chunk, depends=depends))
    return a_job(layers=layers)


def free(farm: CoreFarm, job: int = 0, layer: str = "comp") -> list[int]:
    """Frames that wait for nothing any more."""
    return [n for n, state in farm.states(job, layer).items() if state == "WAITING"]


# -- frame by frame ---------------------------------------------------------------------------------------


def test_each_frame_waits_for_its_own(farm: CoreFarm) -> None:
    link = farm.link(cores=3)
    job = farm.submit(two("1-3", "1-4", each()))
    assert farm.states(job, "comp") == {1: "BLOCKED", 2: "BLOCKED", 3: "BLOCKED", 4: "WAITING"}
    assert farm.job(job).counts.blocked == 3
    keys = farm.keys(link)
    farm.exited(link, keys[2])
    assert free(farm) == [4]
    assert [(order.layer_name, order.start) for order in farm.orders(link)] == [("comp", 2)]
    farm.restart()
    assert farm.states(job, "comp") == {1: "BLOCKED", 2: "ASSIGNED", 3: "BLOCKED", 4: "WAITING"}


@pytest.mark.parametrize(
    ("one", "other", "offset", "freed"),
    [
        ("1-6", "1-6", -1, [1, 3, 4]),
        ("1-6", "1-6", 1, [1, 2, 6]),
        ("1-6", "1-6", 100, [1, 2, 3, 4, 5, 6]),
        ("6-1", "1-6", 0, [2, 3]),
        ("1-6x2,2-6x2", "1-6", 0, [2, 3]),
        ("1-6", "2-6x2", 0, [2]),
        ("2,3,9", "1-6", 0, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_numbers_that_are_apart(farm: CoreFarm, one: str, other: str, offset: int, freed: list[int]) -> None:
    farm.submit(two(one, other, each(offset)))
    farm.frame(0, "finish", "2,3", layer="sim")
    if one == "2,3,9":
        assert free(farm) == freed
        return
    assert sorted(free(farm)) == freed


def test_a_chunk_waits_for_all_its_numbers(farm: CoreFarm) -> None:
    farm.submit(two("1-8", "1-9", each(), chunk=4))
    farm.frame(0, "finish", "1-3,5-8", layer="sim")
    assert free(farm) == [5, 9]
    farm.frame(0, "finish", "4", layer="sim")
    assert free(farm) == [1, 5, 9]


def test_frames_wait_for_a_chunk_that_holds_them(farm: CoreFarm) -> None:
    farm.submit(two("1-8", "1-8", each(), chunk=1))
    farm.change(0, layer="sim", chunk=4)
    farm.frame(0, "finish", "5", layer="sim")
    assert free(farm) == [5, 6, 7, 8]


@pytest.mark.parametrize(("until", "freed"), [("done", [1]), ("ended", [1, 2])])
def test_a_frame_that_failed(farm: CoreFarm, until: Any, freed: list[int]) -> None:
    link = farm.link(cores=2)
    farm.submit(two("1-3", "1-3", each(until=until), retries=0))
    keys = farm.keys(link)
    farm.verb(0, "stop")
    farm.exited(link, keys[1])
    farm.exited(link, keys[2], badly())
    assert free(farm) == freed
    farm.frame(0, "requeue", "2", layer="sim")
    assert free(farm) == [1]


def test_a_frame_that_runs_again_holds_what_has_not_started(farm: CoreFarm) -> None:
    farm.submit(two("1-2", "1-2", each()))
    farm.frame(0, "finish", "1-2", layer="sim")
    link = farm.link(cores=1)
    key = farm.order(link).key
    farm.frame(0, "requeue", "1-2", layer="sim")
    assert farm.states(0, "comp") == {1: "ASSIGNED", 2: "BLOCKED"}
    assert farm.stops(link) == []
    farm.exited(link, key, badly())
    assert farm.states(0, "comp") == {1: "WAITING", 2: "BLOCKED"}, "in back-off"
    farm.wait(6)
    assert farm.states(0, "comp") == {1: "BLOCKED", 2: "BLOCKED"}
    assert farm.render_all(link) == 4


def test_a_layer_whose_frames_wait_and_that_waits_as_a_whole(farm: CoreFarm) -> None:
    layers = (
        a_layer("1-2", name="sim"),
        a_layer("1", name="prep"),
        a_layer("1-2", name="comp", after=("prep",), depends=(each(),)),
    )
    farm.submit(a_job(layers=layers))
    farm.frame(0, "finish", "1", layer="sim")
    assert free(farm) == []
    assert farm.job(0).counts.blocked == 2
    farm.frame(0, "finish", "1", layer="prep")
    assert free(farm) == [1]


def test_two_layers_at_once(farm: CoreFarm) -> None:
    layers = (
        a_layer("1-3", name="sim"),
        a_layer("1-3", name="fx"),
        a_layer("1-3", name="comp", depends=(each(), each(layer="fx", offset=1))),
    )
    farm.submit(a_job(layers=layers))
    for number in ("1", "2"):
        farm.frame(0, "finish", number, layer="sim")
        assert free(farm) == []
    farm.frame(0, "finish", "3", layer="fx")
    assert free(farm) == [2]
    comp = farm.core.state.jobs[0].layers[2]
    assert [(layer.spec.name, pieces) for layer, pieces in frame_waits(comp, 0)] == [("fx", [(1, 2)])]
    assert frame_waits(comp, 1) == []


def test_the_frame_before(farm: CoreFarm) -> None:
    link = farm.link(cores=4)
    layer = a_layer("5-1", depends=(LayerDepend(frames="previous"),), retries=0)
    farm.submit(a_job(layers=(layer,)))
    for number in (5, 4, 3):
        order = farm.order(link)
        assert order.start == number
        farm.exited(link, order.key, badly() if number == 3 else None)
    assert farm.orders(link) == []
    assert farm.states() == {5: "DONE", 4: "DONE", 3: "FAILED", 2: "BLOCKED", 1: "BLOCKED"}
    farm.frame(0, "finish", "3")
    assert farm.render_all(link) == 2


def test_frames_that_wait_may_be_finished_by_hand(farm: CoreFarm) -> None:
    farm.submit(two("1-3", "1-3", each()))
    assert farm.frame(0, "finish", "1-2", layer="comp") == 2
    assert farm.states(0, "comp") == {1: "DONE", 2: "DONE", 3: "BLOCKED"}
    farm.restart()
    assert farm.frame(0, "requeue", "2", layer="comp") == 1
    assert farm.states(0, "comp") == {1: "DONE", 2: "BLOCKED", 3: "BLOCKED"}


def test_other_ranges_on_either_side(farm: CoreFarm) -> None:
    farm.submit(two("1-4", "1-4", each()))
    farm.frame(0, "finish", "1-2", layer="sim")
    farm.change(0, layer="comp", frames="2-6")
    assert free(farm) == [2, 5, 6]
    farm.change(0, layer="sim", frames="2-5")
    assert free(farm) == [2, 6]
    farm.change(0, layer="comp", chunk=3)
    assert free(farm) == []
    farm.restart()
    assert free(farm) == []
    farm.change(0, layer="sim", frames="2")
    assert free(farm) == [2, 5]


def test_a_rerun_of_the_other_job(farm: CoreFarm) -> None:
    farm.submit(a_job("1-4"))
    child = farm.submit(a_job("1-4", layer={"name": "comp", "depends": (each(layer="", job=0),)}))
    farm.frame(0, "finish", "1-3")
    assert free(farm, child) == [1, 2, 3]
    farm.verb(0, "rerun")
    assert free(farm, child) == []
    farm.restart()
    farm.frame(0, "finish", "1-4")
    assert free(farm, child) == [1, 2, 3, 4]
    farm.verb(0, "delete")
    farm.restart()
    assert free(farm, child) == [1, 2, 3, 4]
    assert farm.layers(child)[0].depends == ()


def test_frames_sent_ahead_are_asked_back(farm: CoreFarm) -> None:
    """What waits at its slave has not started."""
    farm.submit(a_job("1-20"))
    child = farm.submit(a_job("1-20", layer={"name": "comp", "depends": (each(layer="", job=0),)}))
    farm.frame(0, "finish", "1-20")
    link = farm.link(cores=1)
    for _ in range(9):
        farm.exited(link, farm.orders(link)[0].key, BRIEF)
    attempts = list(farm.core.state.attempts.values())
    ahead = [attempt.key for attempt in attempts if attempt.ahead]
    assert ahead
    farm.frame(0, "requeue", "1-20")
    assert [key for key, _why in farm.stops(link)] == ahead
    farm.restart()
    farm.link(cores=1, held=[Held(attempt.key) for attempt in attempts])
    assert free(farm, child) == []


# -- parts ------------------------------------------------------------------------------------------------


def test_any_frame(farm: CoreFarm) -> None:
    farm.submit(two("1-4", "1-2", LayerDepend(layer="sim", frames="any")))
    assert farm.core.state.jobs[0].layers[1].blocked == "sim (any frame)"
    farm.frame(0, "finish", "3", layer="sim")
    assert free(farm) == [1, 2]
    farm.frame(0, "requeue", "3", layer="sim")
    assert free(farm) == []


def test_a_percentage_is_rounded_up(farm: CoreFarm) -> None:
    farm.submit(two("1-7", "1", LayerDepend(layer="sim", frames="percent", percent=30)))
    sim, comp = farm.core.state.jobs[0].layers
    assert comp.blocked == "sim (30%)"
    farm.frame(0, "finish", "1-2", layer="sim")
    (far,) = progress(comp.waits)
    assert (far.name, far.layers, far.over, far.wanted, far.total) == ("sim (30%)", (sim,), 2, 3, 7)
    assert (far.met, far.never) == (False, False)
    assert free(farm) == []
    farm.frame(0, "finish", "7", layer="sim")
    assert free(farm) == [1]
    farm.change(0, layer="sim", frames="1-20")
    assert free(farm) == []


@pytest.mark.parametrize("until", ["done", "ended"])
def test_a_percentage_that_cannot_be_met_any_more(farm: CoreFarm, until: Any) -> None:
    link = farm.link(cores=4)
    farm.submit(
        two("1-4", "1", LayerDepend(layer="sim", frames="percent", percent=75, until=until), retries=0)
    )
    farm.verb(0, "stop")
    keys = farm.keys(link)
    for number in (1, 2, 3):
        farm.exited(link, keys[number], badly())
    (far,) = progress(farm.core.state.jobs[0].layers[1].waits)
    assert (far.lost, far.never, far.met) == ((3, True, False) if until == "done" else (0, False, True))


@pytest.mark.parametrize(
    ("total", "frames", "percent", "wanted"),
    [
        (0, "any", 100, 0), (9, "any", 100, 1), (9, "all", 100, 9), (10, "percent", 70, 7),
        (1000, "percent", 1.1, 11), (3, "percent", 33.3, 1), (3, "percent", 33.4, 2),
        (10_000_000, "percent", 100, 10_000_000),
    ],
)  # fmt: skip
def test_how_many_frames_a_part_is(total: int, frames: str, percent: float, wanted: int) -> None:
    assert frames_wanted(total, frames, percent) == wanted


def test_a_job_waits_for_a_layer_of_another(farm: CoreFarm) -> None:
    farm.submit(two("1-4", "1-2"))
    child = farm.submit(a_job("1", depends=(Depend(0, layer="sim", frames="percent", percent=50),)))
    assert farm.job(child).waits_for == "job 0/sim (50%)"
    assert farm.job(0).dependents == (child,)
    farm.frame(0, "finish", "1-2", layer="comp")
    assert farm.states(child) == {1: "BLOCKED"}
    farm.frame(0, "finish", "1-2", layer="sim")
    assert farm.states(child) == {1: "WAITING"}


def test_a_layer_waits_for_a_layer_of_another_job(farm: CoreFarm) -> None:
    farm.submit(two("1-4", "1-2"))
    layers = (a_layer("1", name="a"), a_layer("1", name="b", depends=(LayerDepend(job=0, layer="comp"),)))
    child = farm.submit(a_job(layers=layers))
    assert (farm.states(child, "a"), farm.states(child, "b")) == ({1: "WAITING"}, {1: "BLOCKED"})
    assert farm.core.state.jobs[child].layers[1].blocked == "0/comp"
    farm.restart()
    farm.frame(0, "finish", "1-2", layer="comp")
    assert farm.states(child, "b") == {1: "WAITING"}


# -- how ranges lie to each other -------------------------------------------------------------------------

SOME = ["1-9", "9-1", "1-20x2", "2-20x2", "20-2x3", "1-4,7-9", "5,3,9", "-5-5", "1-9x3,2-9x3", "1-30y4", "7"]
cuts = st.builds(lambda text, size: Chunks(FrameRange(text), size), st.sampled_from(SOME), st.integers(1, 4))


@given(cuts, cuts, st.integers(-7, 7), st.data())
def test_which_frames_go_with_which(one: Chunks, other: Chunks, offset: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(one) - 1))
    end = data.draw(st.integers(start + 1, len(one)))
    numbers = {n + offset for i in range(start, end) for n in one.members(i)}
    expected = [i for i in range(len(other)) if numbers & set(other.members(i))]
    assert [i for a, b in spread(one, start, end, offset, other) for i in range(a, b)] == expected
    by = shift(one, other, offset)
    if by is not None:
        assert [i + by for i in range(start, end) if 0 <= i + by < len(other)] == expected


@given(cuts, st.integers(-40, 40), st.integers(0, 40))
def test_what_lies_between_two_numbers(chunks: Chunks, low: int, more: int) -> None:
    if chunks.frames.single is not None:
        wanted = set(range(low, low + more + 1))
        inside = [i for i in range(len(chunks)) if wanted & set(chunks.members(i))]
        found = between(chunks, low, low + more)
        assert (list(range(*found)) if found else []) == inside


pieces = st.lists(
    st.builds(lambda at, size: (at, at + size), st.integers(0, 30), st.integers(1, 9)), max_size=8
)


@given(pieces, pieces, pieces, st.integers(0, 30), st.integers(0, 30))
def test_stretches(one: Any, other: Any, third: Any, start: int, end: int) -> None:
    def members(found: Any) -> set[int]:
        return {i for a, b in found for i in range(a, b)}

    tidy = joined(one)
    assert members(tidy) == members(one)
    assert all(a[1] < b[0] for a, b in pairwise(tidy))
    assert members(without(tidy, joined(other))) == members(one) - members(other)
    window = set(range(start, end))
    assert members(IntervalSet(one).within(start, end)) == members(one) & window
    found = gaps([IntervalSet(x) for x in (one, other, third)], start, end)
    assert members(found) == window - members(one) - members(other) - members(third)


def test_a_layer_of_a_million_frames_each() -> None:
    """Nothing is kept for each of them."""
    farm = CoreFarm()
    spec = two("1-1000000", "1-1000000", each(-3))
    job = farm.core.state.jobs[farm.submit_unchecked(spec)]
    sim, comp = job.layers
    assert list(comp.held.intervals()) == [(3, 1_000_000)]
    sim.move(10, 500_000, "WAITING", "DONE")
    assert list(comp.held.intervals()) == [(3, 13), (500_003, 1_000_000)]
    assert isinstance(comp.spec, LayerSpec)
