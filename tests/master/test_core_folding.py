"""Rows of frames that say no more than DONE are folded into their layer's; sums are kept as they change."""

import pytest

from drqueue.master.core import folding
from drqueue.master.core.records import LayerTotals
from drqueue.proto.intervals import IntervalSet
from tests.builders import WALL, CoreFarm, a_job, badly, well


@pytest.fixture
def farm(monkeypatch: pytest.MonkeyPatch) -> CoreFarm:
    """Ten rows are many."""
    monkeypatch.setattr(folding, "FOLD_ROWS", 10)
    monkeypatch.setattr(folding, "FOLD_FEW", 3)
    return CoreFarm()


def rows(farm: CoreFarm) -> tuple[list[int], list[int], list[int]]:
    """Positions with a row that says more than DONE, with one that says no more, and DONE without one."""
    saved = farm.storage.load()
    folded = [index for layer in saved.layers for index in IntervalSet.unpack(layer.done)]
    only_done = [index for row in saved.done for index in row.positions]
    return [row.frame for row in saved.frames], only_done, folded


def render(farm: CoreFarm, link: int, *numbers: int) -> None:
    keys = {attempt.number: key for key, attempt in farm.core.state.attempts.items()}
    for number in numbers:
        farm.exited(link, keys[number])


def test_rows_stay_until_they_are_many_and_then_go(farm: CoreFarm) -> None:
    link = farm.link(cores=20)
    farm.submit(a_job("1-40"))
    render(farm, link, *range(1, 10))
    assert rows(farm) == ([], [*range(9)], [])
    render(farm, link, 10)
    assert rows(farm) == ([], [], [*range(10)])
    render(farm, link, 11)
    assert rows(farm) == ([], [10], [*range(10)])
    farm.restart()
    assert [number for number, state in farm.states().items() if state == "DONE"] == [*range(1, 12)]


def test_few_rows_go_when_nothing_is_left_to_do(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1-3"))
    farm.submit(a_job("1-2"))
    farm.render_all(link)
    saved = farm.storage.load()
    assert [list(IntervalSet.unpack(layer.done)) for layer in saved.layers] == [[0, 1, 2]]
    assert [(row.job, list(row.positions)) for row in saved.done] == [(1, [0, 1])]
    farm.restart()
    assert farm.job(0).counts.done == 3


def test_who_has_more_to_tell_keeps_its_row(farm: CoreFarm) -> None:
    link = farm.link(cores=20)
    farm.submit(a_job("1-30"))
    keys = farm.keys(link)
    farm.exited(link, keys[3], badly())
    farm.wait(10_000.0)
    render(farm, link, *(n for n in range(1, 12) if n != 3))
    assert rows(farm) == ([2], [], [0, 1, *range(3, 11)])
    farm.exited(link, farm.keys(link)[3])
    assert rows(farm) == ([2], [], [0, 1, *range(3, 11)])
    farm.restart()
    assert farm.frames()[3].requeued == 1


@pytest.mark.parametrize("restarts", [0, 1])
def test_a_folded_frame_that_is_sent_back_gets_a_new_number(farm: CoreFarm, restarts: int) -> None:
    """No attempt's name is given twice, whatever was forgotten."""
    link = farm.link(cores=4)
    farm.submit(a_job("1-4"))
    farm.exited(link, farm.keys(link)[2], badly())
    farm.wait(10_000.0)
    render(farm, link, 1, 3, 4, 2)
    assert rows(farm)[1:] == ([], [0, 2, 3])
    for _ in range(restarts):
        farm.restart()
        link = farm.link(cores=4)
    farm.orders(link)
    farm.frame(0, "requeue", "1")
    assert farm.order(link).key.attempt == 3
    render(farm, link, 1)
    farm.verb(0, "rerun")
    assert {order.key.attempt for order in farm.orders(link)} == {4}
    farm.restart()


def test_what_was_forgotten_still_counts_when_names_are_given(farm: CoreFarm) -> None:
    """Not even where no row is left that tells of any attempt."""
    farm.submit(a_job("1-4"))
    farm.render_all(farm.link())
    assert rows(farm) == ([], [], [0, 1, 2, 3])
    for again in (2, 3):
        farm.restart()
        link = farm.link(cores=1)
        farm.verb(0, "rerun")
        keys = [farm.order(link).key]
        for _ in range(3):
            farm.exited(link, keys[-1])
            keys.append(farm.order(link).key)
        farm.exited(link, keys[-1])
        assert {key.attempt for key in keys} == {again}


def test_it_is_done_a_few_rows_a_step(farm: CoreFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drqueue.master.core.core.AT_ONCE", 4)
    link = farm.link(cores=20)
    farm.submit(a_job("1-20"))
    render(farm, link, *range(1, 11))
    assert rows(farm) == ([], [*range(4, 10)], [*range(4)])
    render(farm, link, 15)
    assert rows(farm) == ([], [8, 9, 14], [*range(8)])
    farm.restart()
    farm.read_clock()
    assert rows(farm) == ([], [8, 9, 14], [*range(8)])
    farm.link(cores=20)
    farm.frame(0, "finish", "1-20")
    assert farm.states() == dict.fromkeys(range(1, 21), "DONE")


def test_a_restarted_master_goes_on_folding(farm: CoreFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    link = farm.link(cores=20)
    farm.submit(a_job("1-20"))
    monkeypatch.setattr(folding, "FOLD_ROWS", 100)
    render(farm, link, *range(1, 13))
    assert rows(farm) == ([], [*range(12)], [])
    monkeypatch.setattr(folding, "FOLD_ROWS", 10)
    farm.restart()
    farm.read_clock()
    assert rows(farm) == ([], [], [*range(12)])


def test_scattered_frames_keep_their_rows_until_they_grow_together(
    farm: CoreFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "_SCATTERED", 5)
    link = farm.link(cores=40)
    farm.submit(a_job("1-40"))
    render(farm, link, *range(1, 21, 2))
    assert rows(farm)[1:] == ([*range(0, 20, 2)], [])
    render(farm, link, *range(2, 21, 2))
    assert rows(farm)[1:] == ([], [*range(20)])


def test_a_deleted_job_is_not_folded(farm: CoreFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drqueue.master.core.core.AT_ONCE", 1)
    link = farm.link(cores=20)
    farm.submit(a_job("1-10"))
    farm.render_all(link)
    assert farm.core.state.foldable
    farm.verb(0, "delete")
    farm.read_clock()
    assert not farm.core.state.foldable
    saved = farm.storage.load()
    assert (list(saved.layers), list(saved.totals)) == ([], [])


# -- sums -------------------------------------------------------------------------------------------------


def totals(farm: CoreFarm) -> list[LayerTotals]:
    return list(farm.storage.load().totals)


def test_sums_are_saved_as_they_change_and_start_anew_with_a_rerun(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    farm.submit(a_job("1-2"))
    assert totals(farm) == []
    farm.exited(link, farm.order(link).key, badly(cpu_s=0.5, started_at=WALL, ended_at=WALL + 9))
    assert totals(farm) == [LayerTotals(0, 0, done=0, wall_s=0.0, cpu_s=0.5, failed=1)]
    farm.wait(10_000.0)
    for _ in range(2):
        farm.exited(link, farm.order(link).key, well(cpu_s=2.0))
    assert totals(farm) == [LayerTotals(0, 0, done=2, wall_s=120.0, cpu_s=4.5, failed=1)]
    farm.restart()
    link = farm.link(cores=1)
    late = farm.verb(0, "rerun")
    assert late == 2
    assert totals(farm) == [LayerTotals(0, 0, done=0, wall_s=0.0, cpu_s=0.0, failed=1)]
    farm.exited(link, farm.order(link).key, well(cpu_s=1.0))
    farm.restart()
    assert totals(farm) == [LayerTotals(0, 0, done=1, wall_s=60.0, cpu_s=1.0, failed=1)]
    assert farm.core.state.jobs[0].layers[0].failures == 1
