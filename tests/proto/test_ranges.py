"""Frame ranges and chunks against fileseq, against a naive model that expands all, and at their limits."""

import re
import tracemalloc
from itertools import pairwise

import fileseq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from drqueue.proto.ranges import MAX_FRAMES, Chunks, FrameRange, RangeError, format_numbers

numbers = st.integers(-40, 40)
far = st.integers(-(10**14), 10**14)


def naive_part(first: int, last: int, kind: str, step: int) -> list[int]:
    """What one part names, written as plainly as can be."""
    whole = list(range(first, last + 1) if first <= last else range(first, last - 1, -1))
    if kind == "x":
        return whole[::step]
    if kind == "y":
        return [number for place, number in enumerate(whole) if place % step]
    return list(dict.fromkeys(number for each in range(step, 0, -1) for number in whole[::each]))


@st.composite
def parts(draw: st.DrawFn, number: st.SearchStrategy[int] = numbers) -> tuple[str, list[int]]:
    """The text of one part and the numbers it names; never none."""
    first = draw(number)
    if draw(st.booleans()):
        return str(first), [first]
    last = first + draw(st.integers(-60, 60))
    if draw(st.booleans()):
        return f"{first}{draw(st.sampled_from(['-', '..']))}{last}", naive_part(first, last, "x", 1)
    kind, step = draw(st.sampled_from("xy:")), draw(st.integers(1, 70))
    named = naive_part(first, last, kind, step)
    assume(named)
    sign = "-" if last < first and draw(st.booleans()) else ""
    return f"{first}-{last}{kind}{sign}{step}", named


between = st.sampled_from([",", " ", ", ", " , ", "\t", ",\n"])


@st.composite
def texts(draw: st.DrawFn, number: st.SearchStrategy[int] = numbers) -> tuple[str, list[int]]:
    """A whole range and the numbers it names, in order and once."""
    chosen = draw(st.lists(parts(number), min_size=1, max_size=7))
    text = chosen[0][0]
    for part, _ in chosen[1:]:
        text += draw(between) + part
    return text, list(dict.fromkeys(member for _, named in chosen for member in named))


def check_sequence(frames: FrameRange, expected: list[int]) -> None:
    """All that a range answers, against the plain list."""
    assert list(frames) == expected
    assert len(frames) == len(expected)
    assert [frames[place] for place in range(len(expected))] == expected
    for outside in (-1, len(expected), len(expected) + 1000):
        with pytest.raises(IndexError):
            frames[outside]
    low, high = min(expected), max(expected)
    assert (frames.min, frames.max) == (low, high)
    places = {number: place for place, number in enumerate(expected)}
    around = [low - 10**6, low - 1, high + 1, high + 10**6, *expected]
    for number in around + [each + 1 for each in expected] + [each - 1 for each in expected]:
        assert frames.position(number) == places.get(number)
        assert (number in frames) == (number in places)


@given(texts())
def test_range_means_what_a_naive_expansion_says(case: tuple[str, list[int]]) -> None:
    text, expected = case
    check_sequence(FrameRange.parse(text), expected)


@given(texts(far))
def test_numbers_far_apart_mean_the_same(case: tuple[str, list[int]]) -> None:
    text, expected = case
    check_sequence(FrameRange.parse(text), expected)


@given(texts())
def test_range_means_what_fileseq_says(case: tuple[str, list[int]]) -> None:
    """Where both can read it: fileseq wants commas between parts and knows no `..`."""
    text = ",".join(case[0].replace(",", " ").split()).replace("..", "-")
    assert list(FrameRange.parse(text)) == list(fileseq.FrameSet(text))


@given(texts())
def test_text_parses_back_to_the_same_range(case: tuple[str, list[int]]) -> None:
    frames = FrameRange.parse(case[0])
    again = FrameRange.parse(frames.text)
    assert again == frames
    assert hash(again) == hash(frames)
    assert again.text == frames.text
    assert again.symbolic == frames.symbolic
    assert list(again) == list(frames)
    assert len(frames.text) <= len(case[0])


@given(texts(), texts())
def test_equal_ranges_name_the_same_frames(one: tuple[str, list[int]], two: tuple[str, list[int]]) -> None:
    if FrameRange.parse(one[0]) == FrameRange.parse(two[0]):
        assert one[1] == two[1]


@given(texts(), st.integers(1, 12) | st.integers(1, 10**20))
def test_chunks_obey_their_laws(case: tuple[str, list[int]], size: int) -> None:
    text, expected = case
    frames = FrameRange.parse(text)
    chunks = Chunks(frames, size)
    members = [chunks.members(chunk) for chunk in range(len(chunks))]
    assert [number for chunk in members for number in chunk] == expected
    for chunk, held in enumerate(members):
        assert 1 <= len(held) <= size
        assert chunks.first(chunk) == held[0]
        assert frames[chunks.position_of(chunk)] == held[0]
        assert all(chunks.chunk_of(number) == chunk for number in held)
    for outside in (-1, len(chunks)):
        for ask in (chunks.members, chunks.first, chunks.position_of):
            with pytest.raises(IndexError):
                ask(outside)
    assert chunks.chunk_of(max(expected) + 1) is None


@given(texts(), st.integers(1, 12))
def test_no_chunk_spans_two_parts(case: tuple[str, list[int]], size: int) -> None:
    """Cutting part by part gives the same chunks, where parts share no members."""
    frames = FrameRange.parse(case[0])
    words = frames.text.split(",")
    alone = [FrameRange.parse(word) for word in words]
    assume(sum(map(len, alone)) == len(frames))
    pieces = [Chunks(part, size) for part in alone]
    expected = [piece.members(chunk) for piece in pieces for chunk in range(len(piece))]
    chunks = Chunks(frames, size)
    assert [chunks.members(chunk) for chunk in range(len(chunks))] == expected


@given(numbers, st.integers(-60, 60), st.integers(1, 9), st.integers(1, 9))
def test_chunks_of_one_part_start_at_even_distances(first: int, span: int, step: int, size: int) -> None:
    frames = FrameRange.parse(f"{first}-{first + span}x{step}")
    assert frames.symbolic
    assert frames.single is not None
    start, _, signed = frames.single
    chunks = Chunks(frames, size)
    assert [chunks.first(chunk) for chunk in range(len(chunks))] == [
        start + chunk * size * signed for chunk in range(len(chunks))
    ]
    assert len(chunks) == -(-len(frames) // size)


@pytest.mark.parametrize(
    ("text", "canonical", "expected"),
    [
        ("1-10x2", "1-10x2", [1, 3, 5, 7, 9]),
        ("1-10y3", "1-10y3", [2, 3, 5, 6, 8, 9]),
        ("1-10:3", "1-10:3", [1, 4, 7, 10, 3, 5, 9, 2, 6, 8]),
        ("1-10:20", "1-10:20", [1, 10, 9, 8, 7, 6, 5, 4, 3, 2]),
        ("1-2:3", "1-2:3", [1, 2]),
        ("10-1x3", "10-1x3", [10, 7, 4, 1]),
        ("10-1x-3", "10-1x3", [10, 7, 4, 1]),
        ("3-1", "3-1", [3, 2, 1]),
        ("-2-2", "-2-2", [-2, -1, 0, 1, 2]),
        ("-2..-4", "-2--4", [-2, -3, -4]),
        ("-5--5", "-5", [-5]),
        ("-0", "0", [0]),
        ("0007-009", "7-9", [7, 8, 9]),
        ("0" * 9000 + "12", "12", [12]),
        ("-" + "0" * 20 + "12", "-12", [-12]),
        ("1-5:1", "1-5", [1, 2, 3, 4, 5]),
        ("1-2x5", "1", [1]),
        ("5-5x3", "5", [5]),
        ("5-5:3", "5", [5]),
        (" 1 , 5,7-9 ", "1,5,7-9", [1, 5, 7, 8, 9]),
        ("1 2 3 9", "1-3,9", [1, 2, 3, 9]),
        ("1,5,9,100", "1-9x4,100", [1, 5, 9, 100]),
        ("4,4,3,3,2", "4-2", [4, 3, 2]),
        ("1,1", "1", [1]),
        ("1-5,3", "1-5", [1, 2, 3, 4, 5]),
        ("1-5,3-7", "1-5,3-7", [1, 2, 3, 4, 5, 6, 7]),
        ("1-5,7,2-4,9,11", "1-5,7-11x2", [1, 2, 3, 4, 5, 7, 9, 11]),
        ("1-5,1000000000,3-7", "1-5,1000000000,3-7", [1, 2, 3, 4, 5, 1000000000, 6, 7]),
    ],
)
def test_meaning_and_canonical_text(text: str, canonical: str, expected: list[int]) -> None:
    frames = FrameRange.parse(text)
    assert frames.text == canonical
    check_sequence(frames, expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the frame range is empty"),
        (" \n", "the frame range is empty"),
        ("1,,2", "a comma has no frame range beside it"),
        (",1", "a comma has no frame range beside it"),
        ("1-3,", "a comma has no frame range beside it"),
        ("1-5@2", "'1-5@2' is no frame range"),
        ("#", "'#' is no frame range"),
        ("1.5-3.5x0.5", "'1.5-3.5x0.5' is no frame range"),
        ("1,2-,3", "'2-' is no frame range"),
        ("1 - 3", "'-' is no frame range"),
        ("5x2", "'5x2' is no frame range"),
        ("1-5X2", "'1-5X2' is no frame range"),
        ("+1", "'+1' is no frame range"),
        ("१", "'१' is no frame range"),
        ("1-5\0", "'1-5\\x00' is no frame range"),
        ("z" * 100, "'" + "z" * 37 + "...' is no frame range"),
        ("1-10x0", "the step of '1-10x0' is 0"),
        ("1-10y-0", "the step of '1-10y-0' is 0"),
        ("1-10x-2", "the step of '1-10x-2' is negative, but the range does not count down"),
        ("5-5x-2", "the step of '5-5x-2' is negative, but the range does not count down"),
        ("1-10y1", "'1-10y1' names no frame"),
        ("5-5y3", "'5-5y3' names no frame"),
        ("1-1000000000000000", "a number in '1-1000000000000000' has more than 15 digits"),
        ("9" * 9000, "a number in '" + "9" * 37 + "...' has more than 15 digits"),
        ("1-9x" + "1" * 16, "a number in '1-9x1111111111111111' has more than 15 digits"),
        (
            "1-10000000:5000000",
            "'1-10000000:5000000' is interleaved too widely: at most 200,000 passes a range",
        ),
        (
            "1-2000000x2,1-10x3",
            "a range with parts that overlap, or of yN or :N, has at most 1,000,000 frames, not 1,000,004",
        ),
        (
            "1-1500003y3",
            "a range with parts that overlap, or of yN or :N, has at most 1,000,000 frames, not 1,000,002",
        ),
    ],
)
def test_bad_text_is_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(RangeError) as refusal:
        FrameRange.parse(text)
    assert str(refusal.value).startswith(said)
    assert "\n" not in str(refusal.value)


@given(st.text(alphabet="0123456789-xy:., ,#\n", max_size=30) | st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but RangeError comes out, and only words of the grammar are read."""
    assume(not re.search("[0-9]{5}", text))  # large ranges are read elsewhere
    words = [word for word in re.split(r"[,\s]+", text) if word]
    plain = r"-?[0-9]+((-|\.\.)-?[0-9]+([xy:]-?[0-9]+)?)?"
    try:
        frames = FrameRange.parse(text)
    except RangeError:
        return
    assert words
    assert all(re.fullmatch(plain, word) for word in words)
    assert 1 <= len(frames) <= MAX_FRAMES


@pytest.mark.parametrize(
    "text",
    [
        "1-10000001",
        "1-999999999999",
        "1-999999999999:3",
        "1-999999999999y2",
        "999999999999-1x2",
        "1-6000000,10000001-16000000",
        "5," * 3 + "-999999999999999-999999999999999",
    ],
)
def test_too_many_frames_are_refused_before_anything_is_expanded(text: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(RangeError, match="a range has at most 10,000,000"):
            FrameRange.parse(text)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1-10000000", 10_000_000),
        ("999999999999999-1x200000000", 5_000_000),
        ("1-9000000x3,2-9000000x3,9000000-3x3", 9_000_000),
        (",".join(f"{1000 * k}-{1000 * k + 998}" for k in range(200)), 200 * 999),
    ],
)
def test_disjoint_even_parts_cost_no_memory_per_frame(text: str, size: int) -> None:
    tracemalloc.start()
    try:
        frames = FrameRange.parse(text)
        chunks = [Chunks(frames, 1), Chunks(frames, 7)]
        for place in (0, size // 2, size - 1):
            assert frames.position(frames[place]) == place
            for each in chunks:
                chunk = each.chunk_of(frames[place])
                assert chunk is not None
                assert frames[place] in each.members(chunk)
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
    assert frames.symbolic
    assert len(frames) == len(chunks[0]) == size


@pytest.mark.parametrize(
    ("text", "symbolic", "single"),
    [
        ("7", True, (7, 7, 1)),
        ("1-10", True, (1, 10, 1)),
        ("1-10x4", True, (1, 10, 4)),
        ("10-1x4", True, (10, 1, -4)),
        ("3,2,1", True, (3, 1, -1)),
        ("1-10,20-30", True, None),
        ("1-10x2,2-10x2", True, None),
        ("1-30x6,2-30x9", True, None),
        ("1-30x6,4-30x4", True, None),
        ("100-1x6,4-100x9", False, None),
        ("1-30x6,3-30x4", False, None),
        ("0-100x6,50-100x4", False, None),
        ("1-10,10-20", False, None),
        ("1-10y3", False, None),
        ("1-10:3", False, None),
    ],
)
def test_what_stays_symbolic(text: str, symbolic: bool, single: tuple[int, int, int] | None) -> None:
    frames = FrameRange.parse(text)
    assert (frames.symbolic, frames.single) == (symbolic, single)


@given(*[st.tuples(st.integers(0, 300), st.integers(-400, 400), st.integers(1, 40))] * 2)
def test_two_even_parts_stay_symbolic_exactly_where_they_share_nothing(
    one: tuple[int, int, int], two: tuple[int, int, int]
) -> None:
    members = [naive_part(first, first + span, "x", step) for first, span, step in (one, two)]
    assume(min(map(len, members)) > 1 and not set(members[0]) <= set(members[1]))
    assume(not set(members[1]) <= set(members[0]))  # else one of them is dropped
    text = ",".join(f"{first}-{first + span}x{step}" for first, span, step in (one, two))
    assert FrameRange.parse(text).symbolic == set(members[0]).isdisjoint(members[1])


@pytest.mark.parametrize("spread", [1, 10**9])
def test_very_many_single_numbers(spread: int) -> None:
    """Scattered ones go into an array, evenly spaced ones become one part."""
    scattered = [k * k % 50_021 * spread for k in range(25_000)]
    frames = FrameRange.parse(",".join(map(str, scattered)))
    assert not frames.symbolic
    assert list(frames) == list(dict.fromkeys(scattered))
    assert frames.position(scattered[777]) == 777
    assert frames.position(3 * spread + 1) in (None, scattered.index(4) if spread == 1 else None)
    even = FrameRange.parse(",".join(str(k * spread) for k in range(25_000)))
    assert even.single == (0, 24_999 * spread, spread)


def test_parts_whose_overlap_takes_too_long_to_find_are_expanded() -> None:
    text = ",".join(f"{k}-{k + 99_000}x1000" for k in range(100))
    frames = FrameRange.parse(text)
    assert not frames.symbolic
    assert sorted(frames) == [number for number in range(99_100) if number % 1000 < 100]


def test_chunks_where_spacing_changes() -> None:
    def cut(text: str, size: int) -> list[list[int]]:
        chunks = Chunks(FrameRange.parse(text), size)
        return [list(chunks.members(chunk)) for chunk in range(len(chunks))]

    assert cut("1-10", 4) == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert cut("10-1x2", 2) == [[10, 8], [6, 4], [2]]
    assert cut("1-3,4-6", 2) == [[1, 2], [3], [4, 5], [6]]
    assert cut("1,5,7-9", 2) == [[1], [5], [7, 8], [9]]
    assert cut("1-10y3", 4) == [[2, 3], [5, 6], [8, 9]]
    assert cut("1-10:3", 3) == [[1, 4, 7], [10], [3, 5], [9], [2, 6], [8]]
    assert cut("10-1:3", 3) == [[10, 7, 4], [1], [8, 6], [2], [9, 5], [3]]
    assert cut("3-4,1-7", 2) == [[3, 4], [1, 2], [5, 6], [7]]
    assert cut("1-10:3", 1) == [[1], [4], [7], [10], [3], [5], [9], [2], [6], [8]]


@pytest.mark.parametrize("size", [0, -1])
def test_chunk_sizes_below_one_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="at least 1 frame"):
        Chunks(FrameRange.parse("1-5"), size)


def test_equality_is_that_of_meaning() -> None:
    one, same, other = map(FrameRange.parse, ("1-10x2", " 1..9x2", "1-5x2,7-9x2"))
    assert one == same
    assert one != other  # their chunks differ
    assert one != "1-10x2"
    assert Chunks(one, 2) == Chunks(same, 2)
    assert len({one, same, other}) == 2
    assert len({Chunks(one, 2), Chunks(same, 2), Chunks(one, 3), Chunks(other, 2)}) == 3
    assert Chunks(one, 2) != one
    assert "5" not in one
    assert repr(one) == "FrameRange('1-10x2')"
    assert repr(Chunks(one, 2)) == "Chunks(FrameRange('1-10x2'), 2)"


def test_numbers_as_text() -> None:
    shown = [*range(1, 11), 12, *range(20, 31, 2)]
    assert format_numbers(shown) == "1-10,12,20-30x2"
    assert format_numbers(reversed(shown)) == "1-10,12,20-30x2"
    assert format_numbers([]) == ""
    assert format_numbers([3, -1, 3]) == "-1,3"
    assert format_numbers([-3, -2]) == "-3--2"


@given(st.sets(st.integers(-50, 50) | far, min_size=1))
def test_numbers_as_text_parse_back(members: set[int]) -> None:
    text = format_numbers(members)
    assert list(FrameRange.parse(text)) == sorted(members)
    runs = [list(FrameRange.parse(word)) for word in text.split(",")]
    assert all(one[-1] < two[0] for one, two in pairwise(runs))
