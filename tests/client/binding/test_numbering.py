"""Units, indices and numbers: the rules of the original, against a list written out; and real ranges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.client.binding import numbering
from drqueue.client.binding.fields import put
from drqueue.client.binding.structures import job
from drqueue.proto.ranges import Chunks, FrameRange


def a_job(start: int, end: int, step: int = 1, block: int = 1) -> job:
    each = job()
    put(each, "frame_start", start)
    put(each, "frame_end", end)
    each.frame_step, each.block_size = step, block
    return each


def numbers(each: job) -> list[int]:
    return [numbering.job_frame_index_to_number(each, index) for index in range(numbering.job_nframes(each))]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((1, 10, 3, 1), [1, 4, 7, 10]),
        ((1, 10, 3, 2), [1, 7]),
        ((1, 10, 1, 4), [1, 5, 9]),
        ((1, 1, 1, 1), [1]),
        ((0, 0, 5, 5), [0]),
        ((1, 10, 20, 1), [1]),
        ((7, 6, 1, 1), []),
        ((7, 6, 3, 1), []),
        ((7, 5, 1, 1), []),
        ((100, 1, 1, 1), []),
        ((1, 10, 0, 1), []),
        ((1, 10, 1, 0), []),
    ],
)
def test_the_original_s_examples(span: tuple[int, int, int, int], expected: list[int]) -> None:
    assert numbers(a_job(*span)) == expected


spans = st.tuples(st.integers(-50, 200), st.integers(-60, 260), st.integers(1, 30), st.integers(1, 30))


@given(spans)
def test_units_are_blocks_of_the_written_out_range(span: tuple[int, int, int, int]) -> None:
    start, end, step, block = span
    frames = list(range(start, end + 1, step))
    units = [frames[at : at + block] for at in range(0, len(frames), block)]
    each = a_job(*span)
    assert numbering.job_nframes(each) == len(units)
    assert numbers(each) == [unit[0] for unit in units]
    for index, unit in enumerate(units):
        assert list(numbering.job_unit_members(each, index)) == unit
        assert [numbering.job_frame_number_to_index(each, number) for number in unit] == [index] * len(unit)
    for number in range(start - 5, end + 6):
        assert numbering.job_frame_number_correct(each, number) == int(number in frames)
    for index in (-1, len(units)):
        with pytest.raises(IndexError):
            numbering.job_unit_members(each, index)


@given(
    st.tuples(
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
    )
)
def test_the_formula_holds_for_all_that_a_job_can_say(span: tuple[int, int, int, int]) -> None:
    start, end, step, block = span
    count = numbering.unit_count(*span)
    if end < start or not step or not block:
        assert count == 0
        return
    frames = (end - start + step) // step
    assert (count - 1) * block < frames <= count * block
    last = numbering.unit_number(start, step, block, count - 1)
    assert start <= last <= end
    assert numbering.unit_index(start, step, block, last) == count - 1
    assert numbering.unit_number(start, step, block, count) > end


def test_module_functions_do_not_look_at_the_end_of_the_range() -> None:
    each = a_job(1, 10, 1, 4)
    assert numbering.job_frame_index_to_number(each, 3) == 13
    assert numbering.job_frame_number_to_index(each, 13) == 3
    assert numbering.job_frame_number_correct(each, 13) == 0
    with pytest.raises(OverflowError):
        numbering.job_frame_index_to_number(each, -1)
    with pytest.raises(TypeError):
        numbering.job_frame_index_to_number(each, "1")  # type: ignore[arg-type]


def test_a_number_before_the_range_is_no_place_in_a_list() -> None:
    each = a_job(5, 10)
    index = numbering.job_frame_number_to_index(each, 4)
    assert index == 2**32 - 1
    with pytest.raises(IndexError):
        [0, 1, 2][index]


@pytest.mark.parametrize(("step", "block"), [(0, 1), (1, 0)])
def test_without_a_step_or_a_block_there_is_no_index(step: int, block: int) -> None:
    with pytest.raises(ValueError, match="step or block"):
        numbering.job_frame_number_to_index(a_job(1, 10, step, block), 1)


@pytest.mark.parametrize("text", ["10-1", "1-10y3", "1,5,7-9", "5,-3,100-90x2"])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_real_range_counts_in_place_of_the_four_numbers(text: str, size: int) -> None:
    chunks = Chunks(FrameRange(text), size)
    each = a_job(chunks.frames.min, chunks.frames.max, 1, size)
    put(each, "chunks", chunks)
    assert numbering.job_nframes(each) == len(chunks)
    assert numbers(each) == [chunks.first(index) for index in range(len(chunks))]
    for index in range(len(chunks)):
        for number in numbering.job_unit_members(each, index):
            assert numbering.job_frame_number_to_index(each, number) == index
            assert numbering.job_frame_number_correct(each, number) == 1
    assert numbering.job_frame_number_correct(each, 1000) == 0
    assert numbering.job_frame_number_to_index(each, 1000) == 2**32 - 1
    with pytest.raises(IndexError):
        numbering.job_frame_index_to_number(each, len(chunks))


@pytest.mark.parametrize("name", ["frame_start", "frame_end", "frame_step", "block_size"])
def test_setting_a_number_of_the_range_ends_the_real_one(name: str) -> None:
    each = a_job(1, 9)
    put(each, "chunks", Chunks(FrameRange("1,9"), 1))
    put(each, name, 3)
    assert each.chunks is not None
    setattr(each, name, 2)
    assert each.chunks is None


def test_the_job_s_own_method_looks_at_its_ends() -> None:
    each = a_job(1, 10, 3)
    assert [each.job_frame_index_to_number(index) for index in range(4)] == [1, 4, 7, 10]
    for index in (-1, 4):
        with pytest.raises(IndexError, match="frame index out of range"):
            each.job_frame_index_to_number(index)
    with pytest.raises(TypeError):
        each.job_frame_index_to_number(1.0)  # type: ignore[arg-type]
