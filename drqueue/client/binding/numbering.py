"""How a job's units, their indices and their frame numbers belong together.

Rules of this file: a unit, which is what is run at once, is a block of `block_size` frames, and its
number is that of its first frame. A range that ends before it starts, or whose step or block is 0, has
no units; the farm refuses such a job. Where a job came from a farm with a range that start, end and step
cannot say (`job.chunks` is set then), its real range counts.
"""

from typing import Protocol

from drqueue.client.binding.fields import frame_number, u32
from drqueue.proto.ranges import Chunks

_WRAP = 2**32


class Numbered(Protocol):
    """What this file reads of a job."""

    @property
    def frame_start(self) -> int: ...
    @property
    def frame_end(self) -> int: ...
    @property
    def frame_step(self) -> int: ...
    @property
    def block_size(self) -> int: ...
    @property
    def chunks(self) -> Chunks | None: ...


def unit_count(start: int, end: int, step: int, block: int) -> int:
    """How many units a range has; 0 where it is empty or the step or the block is 0."""
    if step < 1 or block < 1 or end < start:
        return 0
    return -(-((end - start + step) // step) // block)


def unit_number(start: int, step: int, block: int, index: int) -> int:
    """The frame number of the unit at `index`, inside the range or not."""
    return start + index * block * step


def unit_index(start: int, step: int, block: int, number: int) -> int:
    """The index of the unit that holds `number`; ValueError where the step or the block is 0.

    A number before `start` gives an index far beyond every list, never a negative one.
    """
    if step < 1 or block < 1:
        raise ValueError("frames of a job whose step or block size is 0 have no index")
    return (number - start) % _WRAP // (block * step)


def is_member(start: int, end: int, step: int, number: int) -> bool:
    """Whether `number` is one of the range's frames, at the start of a block or inside it."""
    return step > 0 and start <= number <= end and (number - start) % step == 0


def unit_members(start: int, end: int, step: int, block: int, index: int) -> range:
    """The frame numbers of the unit at `index`, in order; IndexError where there is no such unit."""
    if not 0 <= index < unit_count(start, end, step, block):
        raise IndexError("frame index out of range")
    first = unit_number(start, step, block, index)
    return range(first, min(end, first + (block - 1) * step) + 1, step)


def job_nframes(job: Numbered) -> int:
    """How many units a job has; 0 for an empty range."""
    if job.chunks is not None:
        return len(job.chunks)
    return unit_count(job.frame_start, job.frame_end, job.frame_step, job.block_size)


def job_frame_index_to_number(job: Numbered, index: int) -> int:
    """The frame number of the unit at `index`, beyond the end too; IndexError there for a real range."""
    u32(index, "index")
    if job.chunks is not None:
        return job.chunks.first(index)
    return unit_number(job.frame_start, job.frame_step, job.block_size, index)


def job_frame_number_to_index(job: Numbered, number: int) -> int:
    """The index of the unit that holds `number`; not checked against the job's end.

    A number that is not in a job's real range gives 4294967295.
    """
    frame_number(number, "number")
    if job.chunks is not None:
        index = job.chunks.chunk_of(number)
        return _WRAP - 1 if index is None else index
    return unit_index(job.frame_start, job.frame_step, job.block_size, number)


def job_frame_number_correct(job: Numbered, number: int) -> int:
    """1 where `number` is a frame of the job, else 0."""
    frame_number(number, "number")
    if job.chunks is not None:
        return int(number in job.chunks.frames)
    return int(is_member(job.frame_start, job.frame_end, job.frame_step, number))


def job_unit_members(job: Numbered, index: int) -> range:
    """The frame numbers of the unit at `index`; IndexError where there is no such unit."""
    if job.chunks is not None:
        return job.chunks.members(index)
    return unit_members(job.frame_start, job.frame_end, job.frame_step, job.block_size, index)
