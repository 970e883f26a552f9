"""How units, indices and frame numbers belong together: tables of 1 to 10, as records and as frames."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import drqueue
from tests.binding.farm import C, a_farm, a_job, clear, fresh, sent, until_finished

#: (start, end, step, block): the numbers of the units, and the frames that each of them is.
TABLES = {
    (1, 10, 1, 1): [[n] for n in range(1, 11)],
    (1, 10, 3, 1): [[1], [4], [7], [10]],
    (1, 10, 3, 2): [[1, 4], [7, 10]],
    (1, 10, 1, 4): [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]],
    (1, 10, 2, 3): [[1, 3, 5], [7, 9]],
    (1, 10, 10, 1): [[1]],
    (1, 10, 1, 10): [list(range(1, 11))],
    (1, 10, 1, 99): [list(range(1, 11))],
    (5, 5, 1, 1): [[5]],
    (0, 3, 1, 2): [[0, 1], [2, 3]],
}
NAMES = ["{}-{} step {} block {}".format(*key) for key in TABLES]


def a_range(start: int, end: int, step: int, block: int, cmd: str = "true") -> drqueue.job:
    return a_job(cmd, start, end, frame_step=step, block_size=block)


@pytest.mark.parametrize(("span", "units"), TABLES.items(), ids=NAMES)
def test_numbering_of_units(span: tuple[int, int, int, int], units: list[list[int]]) -> None:
    job = a_range(*span)
    assert drqueue.job_nframes(job) == len(units)
    for index, members in enumerate(units):
        assert drqueue.job_frame_index_to_number(job, index) == members[0]
        assert job.job_frame_index_to_number(index) == members[0]
        for number in members:
            assert drqueue.job_frame_number_to_index(job, number) == index
            assert drqueue.job_frame_number_correct(job, number) == 1
    frames = {number for members in units for number in members}
    wrong = [n for n in range(12) if n not in frames]
    assert [drqueue.job_frame_number_correct(job, number) for number in wrong] == [0] * len(wrong)


def test_no_frames_where_the_end_is_just_before_the_start() -> None:
    """There is nothing to ask a master for, and there is none here."""
    job = a_range(5, 4, 1, 1)
    assert drqueue.job_nframes(job) == 0
    assert job.request_frame_list(C) == []
    with pytest.raises(IndexError):
        job.job_frame_index_to_number(0)


@pytest.mark.parametrize(("step", "block"), [(0, 1), (1, 0)])
def test_no_frames_without_a_step_or_a_block(step: int, block: int) -> None:
    job = a_range(1, 10, step, block)
    assert drqueue.job_nframes(job) == 0
    assert job.request_frame_list(C) == []


# -- the same in a farm -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with a_farm(tmp_path_factory.mktemp("numbering") / "farm", ["s1"], cores=4):
        yield


@pytest.fixture
def ran(farm: None, tmp_path: Path) -> Iterator[Path]:
    """A folder for what runs leave behind."""
    yield tmp_path
    clear()


@pytest.mark.slow
@pytest.mark.parametrize(("span", "units"), TABLES.items(), ids=NAMES)
def test_units_run_under_their_numbers(
    ran: Path, span: tuple[int, int, int, int], units: list[list[int]]
) -> None:
    cmd = f"echo $DRQUEUE_PADFRAMES / $DRQUEUE_STEPFRAME / $DRQUEUE_BLOCKSIZE > {ran}/$DRQUEUE_FRAME"
    job = until_finished(sent(a_range(*span, cmd)))
    assert len(job.request_frame_list(C)) == len(units)
    assert job.fdone == len(units)
    for members in units:
        shown = " ".join(f"{number:04d}" for number in members)
        assert (ran / str(members[0])).read_text() == f"{shown} / {span[2]} / {span[3]}\n"
    assert sorted(int(path.name) for path in ran.iterdir()) == [members[0] for members in units]


@pytest.mark.slow
def test_a_step_of_0_becomes_1(ran: Path) -> None:
    job = sent(a_range(1, 3, 0, 1))
    assert job.frame_step == 0
    assert fresh(job).frame_step == 1
    assert until_finished(job).fdone == 3


@pytest.mark.slow
def test_a_range_before_its_start_is_refused(ran: Path) -> None:
    """The original took it: no frame for 5-4, four thousand million for 5-3."""
    for end in (4, 3):
        job = a_range(5, end, 1, 1)
        with pytest.raises(IOError, match=r"^Information not complete\."):
            job.send_to_queue()
        assert drqueue.register_job(job) == 0
    assert drqueue.request_job_list(C) == []


@pytest.mark.slow
def test_any_number_of_a_block_names_the_block(ran: Path) -> None:
    job = until_finished(sent(a_range(1, 10, 1, 4)))
    info = drqueue.frame_info()
    for number in range(1, 11):
        assert drqueue.request_job_frame_info(job.id, number, info, C) == 1
    for number in (0, 11):
        assert drqueue.request_job_frame_info(job.id, number, info, C) == 0
    assert drqueue.request_job_frame_waiting(job.id, 7, C) == 1
    again = until_finished(job)
    assert [info.requeued for info in again.request_frame_list(C)] == [0, 1, 0]
