"""IntervalSet against the built-in set, by random operations and at its limits."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from drqueue.proto.intervals import MAX_POSITION, IntervalSet

places = st.integers(0, 60)
spans = st.tuples(places, places)
sets = st.frozensets(places)


def of(members: "frozenset[int] | set[int] | range") -> IntervalSet:
    return IntervalSet((member, member + 1) for member in members)


def check(held: IntervalSet, model: "set[int] | frozenset[int]") -> None:
    """Same members, and stretches that are sorted, not empty and not touching."""
    assert list(held) == sorted(model)
    assert list(reversed(held)) == sorted(model, reverse=True)
    assert len(held) == len(model)
    assert bool(held) == bool(model)
    end_before = -1
    for start, end in held.intervals():
        assert end_before < start < end
        end_before = end


class AgainstSet(RuleBasedStateMachine):
    """The same operations on an IntervalSet and on a set."""

    @initialize(comb=st.booleans())
    def begin(self, comb: bool) -> None:
        # A comb of many stretches gets the dead head, its compaction and its growth going.
        self.model = set(range(0, 300, 3)) if comb else set()
        self.held = of(self.model)

    @rule(place=places)
    def add(self, place: int) -> None:
        self.held.add(place)
        self.model.add(place)

    @rule(span=spans)
    def add_range(self, span: tuple[int, int]) -> None:
        self.held.add_range(*span)
        self.model |= set(range(*span))

    @rule(place=st.integers(-3, 310))
    def discard(self, place: int) -> None:
        self.held.discard(place)
        self.model.discard(place)

    @rule(start=st.integers(-3, 310), end=st.integers(-3, 310))
    def discard_range(self, start: int, end: int) -> None:
        self.held.discard_range(start, end)
        self.model -= set(range(start, end))

    @precondition(lambda self: self.model)
    @rule(times=st.integers(1, 80))
    def pop_first(self, times: int) -> None:
        for _ in range(min(times, len(self.model))):
            lowest = min(self.model)
            assert self.held.first() == lowest
            assert self.held.last() == max(self.model)
            assert self.held.pop_first() == lowest
            self.model.remove(lowest)

    @precondition(lambda self: not self.model)
    @rule()
    def nothing_to_pop(self) -> None:
        for ask in (self.held.first, self.held.last, self.held.pop_first):
            with pytest.raises(ValueError, match="empty"):
                ask()

    @rule(other=sets)
    def update(self, other: frozenset[int]) -> None:
        self.held.update(of(other))
        self.model |= other

    @rule(other=sets)
    def difference_update(self, other: frozenset[int]) -> None:
        self.held.difference_update(of(other))
        self.model -= other

    @rule(span=spans, other=sets)
    def intersection_update(self, span: tuple[int, int], other: frozenset[int]) -> None:
        kept = other | set(range(*span))
        self.held.intersection_update(of(kept))
        self.model &= kept

    @rule()
    def go_on_with_a_copy(self) -> None:
        before, self.held = self.held, self.held.copy()
        assert before == self.held
        before.add(1000)
        assert before != self.held

    @rule()
    def go_on_with_what_was_packed(self) -> None:
        self.held = IntervalSet.unpack(self.held.pack())

    @invariant()
    def agree(self) -> None:
        check(self.held, self.model)
        for place in range(-2, 64):
            assert (place in self.held) == (place in self.model)
            assert self.held.next_from(place) == min((m for m in self.model if m >= place), default=None)
        assert self.held == of(self.model)


AgainstSet.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestAgainstSet = AgainstSet.TestCase


@given(sets, sets)
def test_whole_set_operations(one: frozenset[int], two: frozenset[int]) -> None:
    for name in ("update", "intersection_update", "difference_update"):
        expected = set(one)
        getattr(expected, name)(two)
        held, other = of(one), of(two)
        getattr(held, name)(other)
        check(held, expected)
        check(other, two)


@given(sets)
def test_a_set_combined_with_itself(members: frozenset[int]) -> None:
    held = of(members)
    held.update(held)
    held.intersection_update(held)
    check(held, members)
    held.difference_update(held)
    check(held, frozenset())


@given(sets, sets)
def test_packed_bytes_are_equal_exactly_for_equal_sets(one: frozenset[int], two: frozenset[int]) -> None:
    assert (of(one).pack() == of(two).pack()) == (one == two)
    assert (of(one) == of(two)) == (one == two)


@given(st.lists(st.tuples(st.integers(0, MAX_POSITION), st.integers(1, 10**9)), max_size=20))
def test_pack_round_trip_of_wide_sets(stretches: list[tuple[int, int]]) -> None:
    held = IntervalSet((start, min(start + size, MAX_POSITION + 1)) for start, size in stretches)
    packed = held.pack()
    again = IntervalSet.unpack(packed)
    assert again == held
    assert len(again) == len(held)
    assert len(packed) <= 16 * len(list(held.intervals()))


@given(st.binary(max_size=60) | st.lists(st.integers(0, 3) | st.integers(126, 130)).map(bytes))
def test_any_bytes_are_unpacked_or_refused(packed: bytes) -> None:
    """What is accepted is exactly what `pack` writes."""
    try:
        held = IntervalSet.unpack(packed)
    except ValueError:
        return
    assert held.pack() == packed
    assert sum(1 for _ in held.intervals()) <= len(packed) / 2
    assert all(0 <= start < end <= MAX_POSITION + 1 for start, end in held.intervals())


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        (b"\x00", "the end is missing"),
        (b"\x00\x80", "the end is missing"),
        (b"\x80\x00\x00", "needless zeros"),
        (b"\xff" * 8 + b"\x01\x00", "too long"),
        (b"\xff" * 7 + b"\x7f\x00", "too high"),
        (b"\xff" * 10**6, "too long"),
    ],
)
def test_corrupt_bytes_are_refused(packed: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        IntervalSet.unpack(packed)


def test_packed_form_stays_readable() -> None:
    """Golden bytes: stored sets outlive the program that wrote them."""
    held = IntervalSet([(0, 1), (5, 205), (MAX_POSITION, MAX_POSITION + 1)])
    golden = bytes.fromhex("0000 03c701 b1feffffffffff0f 00")
    assert held.pack() == golden
    assert IntervalSet.unpack(golden) == held
    assert IntervalSet().pack() == b""


@pytest.mark.parametrize("span", [(-1, 3), (-5, -2), (0, MAX_POSITION + 2)])
def test_positions_out_of_bounds_are_refused(span: tuple[int, int]) -> None:
    held = IntervalSet([(3, 5)])
    with pytest.raises(ValueError, match="not within 0 to"):
        held.add_range(*span)
    check(held, {3, 4})


def test_discarding_from_within_a_stretch_leaves_both_sides() -> None:
    held = IntervalSet([(0, 2), (10, 20), (30, 40)])
    held.discard(15)
    held.discard_range(35, 37)
    held.discard_range(19, 31)
    held.discard_range(12, 12)
    held.discard_range(18, 11)
    assert list(held.intervals()) == [(0, 2), (10, 15), (16, 19), (31, 35), (37, 40)]
    assert len(held) == 17


def test_a_queue_that_moves_on_for_ever_stays_small() -> None:
    held = IntervalSet()
    tracemalloc.start()
    try:
        for place in range(0, 40_000, 2):
            held.add(place)
            if len(held) > 10:
                held.pop_first()
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()
    assert list(held) == list(range(39_980, 40_000, 2))


def test_comparison_text_and_hash() -> None:
    held = IntervalSet([(3, 5), (5, 7), (9, 10)])
    assert repr(held) == "IntervalSet([(3, 7), (9, 10)])"
    assert held != {3, 4, 5, 6, 9}
    assert held != IntervalSet([(3, 8)])
    with pytest.raises(TypeError):
        hash(held)


def test_half_of_a_million_stretches_are_taken_and_put_back_at_the_low_end() -> None:
    """Would take minutes if each change moved all that lies behind it (the suite's time-out is the judge)."""
    held = IntervalSet.unpack(bytes(1_000_000))
    before = held.copy()
    popped = [held.pop_first() for _ in range(500_000 - 10)]
    assert popped == list(range(0, 2 * len(popped), 2))
    assert len(held) == 10
    for place in reversed(popped):
        held.add(place)
    assert held == before
