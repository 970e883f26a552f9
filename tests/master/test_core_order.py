"""The order of frames against a sorted list of those that wait."""

from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from drqueue.master.core import order
from drqueue.master.core.order import FrameOrder
from drqueue.proto.intervals import IntervalSet
from drqueue.proto.order_text import ORDERS
from drqueue.proto.ranges import Chunks, FrameRange


def coarse(size: int) -> list[int]:
    """The ends, then odd multiples of falling powers of two, the slow way."""
    found = list(dict.fromkeys([0, size - 1]))
    step = 1 << size.bit_length()
    while step:
        found += [at for at in range(step, size, 2 * step) if at not in found]
        step //= 2
    return found


def in_order(chunks: Chunks, text: str, next_: str) -> list[int]:
    """All positions of a layer in the order in which they go."""
    size = len(chunks)
    first: list[int | None] = [chunks.chunk_of(n) for n in FrameRange.parse(next_)] if next_ else []
    match text:
        case "forward":
            rest = list(range(size))
        case "reverse":
            rest = list(range(size))[::-1]
        case "coarse":
            rest = coarse(size)
        case _:
            first += [chunks.chunk_of(number) for number in FrameRange.parse(text)]
            rest = list(range(size))
    return list(dict.fromkeys(position for position in [*first, *rest] if position is not None))


def whole(size: int) -> IntervalSet:
    return IntervalSet([(0, size)])


def order_of(frames: str, text: str, next_: str = "", chunk: int = 1) -> list[int]:
    """The first frame numbers of a layer's chunks, one after the other."""
    chunks = Chunks(FrameRange(frames), chunk)
    waiting, going = whole(len(chunks)), FrameOrder(chunks, text, next_)
    found = []
    while (position := going.first(waiting)) is not None:
        found.append(chunks.first(position))
        waiting.discard(position)
    return found


@pytest.mark.parametrize(
    ("frames", "text", "next_", "chunk", "wanted"),
    [
        ("1-5", "forward", "", 1, [1, 2, 3, 4, 5]),
        ("1-5", "reverse", "", 1, [5, 4, 3, 2, 1]),
        ("1-10x3", "reverse", "", 2, [7, 1]),
        ("0-8", "coarse", "", 1, [0, 8, 4, 2, 6, 1, 3, 5, 7]),
        ("1-10", "coarse", "", 1, [1, 10, 9, 5, 3, 7, 2, 4, 6, 8]),
        ("1-1", "coarse", "", 1, [1]),
        ("1-2", "coarse", "", 1, [1, 2]),
        ("1-6", "4,2,99", "", 1, [4, 2, 1, 3, 5, 6]),
        ("1-6", "6-4", "2,5", 1, [2, 5, 6, 4, 1, 3]),
        ("1-6", "reverse", "3", 2, [3, 5, 1]),
        ("1-9", "coarse", "8-9", 1, [8, 9, 1, 5, 3, 7, 2, 4, 6]),
        ("1-6", "forward", "50-60", 1, [1, 2, 3, 4, 5, 6]),
        ("1-6", "6,5,1", "", 3, [4, 1]),
    ],
)
def test_orders(frames: str, text: str, next_: str, chunk: int, wanted: list[int]) -> None:
    assert order_of(frames, text, next_, chunk) == wanted


@given(st.integers(1, 3000))
def test_coarse_has_every_position_once(size: int) -> None:
    waiting = whole(size)
    assert list(FrameOrder(Chunks(FrameRange(f"1-{size}"), 1), "coarse").each(waiting)) == coarse(size)


@pytest.mark.parametrize("chunk", [3, 100])
def test_a_chunk_that_came_back_keeps_the_place_of_its_first_frame(chunk: int) -> None:
    """Chunks of few members, and of many: their places are found in different ways."""
    size = 4 * chunk
    going = FrameOrder(Chunks(FrameRange(f"1-{size}"), chunk), f"{size},1,{chunk + 1},{size - 1},2")
    waiting = whole(4)
    gone = []
    while (position := going.first(waiting)) is not None:
        gone.append(position)
        waiting.discard(position)
    assert gone == [3, 0, 1, 2]
    for position in (1, 0, 3):
        waiting.add(position)
        going.came_back(position)
    assert list(going.each(waiting)) == [3, 0, 1]
    assert going.first(waiting) == 3


TEXTS = st.lists(
    st.sampled_from(["1", "3-7", "20-10x2", "5-30:3", "33", "90-2x3", "8,4"]), min_size=1, max_size=3
)


class AgainstSorted(RuleBasedStateMachine):
    """Frames go and come back in any way; the first one is always the first of those that wait."""

    @initialize(
        frames=st.sampled_from(["1-40", "40-1", "1-80x2", "1-30:4", "1-10,30-21,50"]),
        chunk=st.sampled_from([1, 2, 3, 7]),
        text=st.sampled_from(ORDERS) | TEXTS.map(",".join),
        next_=st.just("") | TEXTS.map(",".join),
        few=st.booleans(),
        large=st.booleans(),
    )
    def begin(self, frames: str, chunk: int, text: str, next_: str, few: bool, large: bool) -> None:
        self.kept = (order._MANY, order._LOOKED_UP)
        order._MANY = 3 if few else 1000
        order._LOOKED_UP = 2 if large else 64
        chunks = Chunks(FrameRange(frames), chunk)
        self.going = FrameOrder(chunks, text, next_)
        self.model = in_order(chunks, text, next_)
        self.size = len(chunks)
        self.waiting = whole(self.size)

    def teardown(self) -> None:
        if hasattr(self, "kept"):
            order._MANY, order._LOOKED_UP = self.kept

    @precondition(lambda self: self.waiting)
    @rule(times=st.integers(1, 20))
    def dispatch(self, times: int) -> None:
        for _ in range(times):
            position = self.going.first(self.waiting)
            assert position == next((each for each in self.model if each in self.waiting), None)
            if position is not None:
                self.waiting.discard(position)

    @rule(data=st.data(), times=st.integers(1, 5))
    def leave_by_another_way(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            self.waiting.discard(data.draw(st.integers(0, self.size - 1)))

    @rule(data=st.data(), times=st.integers(1, 5))
    def come_back(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            position = data.draw(st.integers(0, self.size - 1))
            self.waiting.add(position)
            self.going.came_back(position)

    @rule(data=st.data())
    def many_come_back(self, data: st.DataObject) -> None:
        start, end = sorted((data.draw(st.integers(0, self.size)), data.draw(st.integers(0, self.size))))
        self.waiting.add_range(start, end)
        self.going.came_back(start, end)

    @invariant()
    def all_of_them(self) -> None:
        if hasattr(self, "model"):
            assert list(self.going.each(self.waiting)) == [at for at in self.model if at in self.waiting]


TestAgainstSorted = AgainstSorted.TestCase
TestAgainstSorted.settings = settings(max_examples=60, stateful_step_count=30)


@pytest.mark.parametrize("text", ORDERS)
def test_a_million_frames_cost_nothing_up_front(text: str) -> None:
    """Nor do frames in the middle of them that come back after all are done."""
    chunks = Chunks(FrameRange("1-1000000"), 1)
    began = perf_counter()
    for _ in range(200):
        going, waiting = FrameOrder(chunks, text), whole(1_000_000)
        assert going.first(waiting) is not None
        waiting = IntervalSet([(400_000, 400_050)])
        while (position := going.first(waiting)) is not None:
            waiting.discard(position)
        for position in (3, 700_001, 2):
            waiting.add(position)
            going.came_back(position)
        assert (
            list(going.each(waiting))
            == {
                "forward": [2, 3, 700_001],
                "reverse": [700_001, 3, 2],
                "coarse": [2, 3, 700_001],
            }[text]
        )
    assert perf_counter() - began < 5


def test_nothing_waits() -> None:
    going = FrameOrder(Chunks(FrameRange("1-9"), 1), "5-6", "2")
    assert going.first(IntervalSet()) is None
    assert list(going.each(IntervalSet())) == []
