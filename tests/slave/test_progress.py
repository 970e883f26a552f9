"""Progress is read from what renderers really print, in whatever pieces it comes."""

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.proto.progress import check_progress_pattern
from drqueue.slave.progress import MAX_LINE, ProgressParser


def after(output: bytes, pictures: int = 1, pattern: str = "") -> float | None:
    parser = ProgressParser(pictures, pattern)
    parser.feed(output)
    return parser.progress


CYCLES = b"Fra:5 Mem:11.39M (Peak 11.83M) | Time:00:00.50 | Mem:0.1M | Main, ViewLayer | Sample 3/8\n"
EEVEE = b"Fra:5 Mem:60.00M (Peak 61.00M) | Time:00:01.10 | Rendering 16 / 64 samples\n"
SAVED = b"Saved: '/x/a_0005.png'\n"


@pytest.mark.parametrize(
    ("output", "progress"),
    [
        (b"Progress: 42%\n", 0.42),
        (b"PROGRESS: 42%\r", 0.42),
        (b"[info] progress: 42.5 %\n", 0.425),
        (b"openjd_progress: 42\n", 0.42),
        (b"openjd_progress: 41.5\n", 0.415),
        (CYCLES, 3 / 8),
        (EEVEE, 0.25),
        (SAVED, 1.0),
        (b"00:02.663  render           | Saved: '/x/a.png'\n", 1.0),
        (b"Rendered 906240 of 921600 pixels (98%)\r", 906240 / 921600),
        (b"Progress: 250%\n", 1.0),
        (b"Progress: 1e3%\n", None),
        (b"Progress: 42\n", None),
        (b"say openjd_progress: 42\n", None),
        (b"regress: 42%\n", None),
        (b"frame=12\n", None),
        (b"Rendered 5 of 0 pixels\n", None),
        (b"Fra:1 | x | Sample 0/0\n", None),
        (b"Progress: 42%", None),
        (b"Progress: " + b"9" * 500 + b"%\n", None),
        (b"\0\xff\xfe\r\n\r\r\n", None),
    ],
)
def test_lines(output: bytes, progress: float | None) -> None:
    assert after(output) == progress


def test_several_pictures_advance_by_their_part() -> None:
    parser = ProgressParser(pictures=4)
    seen = []
    for _ in range(4):
        for line in (CYCLES, SAVED):
            parser.feed(line)
            seen.append(parser.progress)
    assert seen == [0.09375, 0.25, 0.34375, 0.5, 0.59375, 0.75, 0.84375, 1.0]


def test_povray_counts_its_own_pictures() -> None:
    assert after(b"Rendering frame 3 of 4\nRendered 50 of 100 pixels (50%)\r", pictures=4) == 0.625


def test_ffmpeg_needs_to_know_how_many() -> None:
    assert after(b"frame=12\nfps=3\nprogress=continue\n", pictures=24) == 0.5
    assert after(b"frame=   18 fps=0.0 q=0.0 size=N/A\r", pictures=24) == 0.75


@pytest.mark.parametrize("word", [b"openjd_status:", b"ACTIVITY:", b"openjd_fail:"])
def test_activity_is_the_last_line_that_said_so(word: bytes) -> None:
    parser = ProgressParser()
    assert parser.feed(word + b" loading\n" + word + " töxtures\x1b[31m\n".encode())
    assert parser.activity == "töxtures[31m"
    assert not parser.feed(b"something else\n")
    parser.feed(word + b" " + b"x" * 5000 + b"\n")
    assert parser.activity == "x" * 200


@given(
    st.lists(st.sampled_from([CYCLES, EEVEE, SAVED, b"Progress: 7%\r", b"frame=3\r\n", b"\n", b"x" * 3000])),
    st.data(),
)
def test_pieces_do_not_matter(lines: list[bytes], data: st.DataObject) -> None:
    output = b"".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(output)), max_size=10)))
    parser = ProgressParser(pictures=9)
    for start, end in zip([0, *cuts], [*cuts, len(output)], strict=True):
        parser.feed(output[start:end])
    assert parser.progress == after(output, pictures=9)


@given(st.binary(max_size=300))
def test_any_bytes_are_taken(output: bytes) -> None:
    progress = after(output, 2, r"(\d+) of (\d+)")
    assert progress is None or 0 <= progress <= 1


def test_an_endless_line_fills_no_memory() -> None:
    parser = ProgressParser()
    piece = b"x" * 65536
    tracemalloc.start()
    try:
        for _ in range(1000):
            parser.feed(piece)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    parser.feed(b"\nProgress: 5%\n")
    assert parser.progress == 0.05


def test_a_long_line_counts_by_its_beginning() -> None:
    assert after(b"Progress: 5%" + b"x" * 10 * MAX_LINE + b"Progress: 6%\n") == 0.05


def test_a_flood_of_lines_is_read_quickly() -> None:
    """A million lines a second is what a program can print; a core reads at least 100,000."""
    output = b"".join(b"[%d] texture tile: loaded %d\n" % (n, n) for n in range(10_000))
    before = time.thread_time()
    after(output)
    assert time.thread_time() - before < 0.1


@pytest.mark.parametrize(
    ("pattern", "output", "progress"),
    [
        (r"done (\d+)%", b"done 30%\n", 0.3),
        (r"^tile (\d+) of (\d+)", b"tile 3 of 12\n", 0.25),
        (r"(\d+)/(\d+)?", b"3/\n", None),
        (r"(\d+)/(\d+)", b"3/0\n", None),
        (r"(\S+) percent", b"no percent\n", None),
        (r"(\S+) percent", b"nan percent\n", None),
        (r"(\S+) percent", b"-5 percent\n", 0.0),
        (r"schön (\d+)", "schön 50\n".encode(), 0.5),
        (r"\[\s*(\d+\.?\d*)%\]", b"[ 12.5%]\n", 0.125),
        (r"(?i)PASS\s+(\d{1,6})\s*(?:of|/)\s*(\d{1,6})", b"Pass 1 / 4\n", 0.25),
        (r"(?:\d{2}:){2}\d{2} (\d+)", b"00:11:22 50\n", 0.5),
        (r"(?<=at )(\d+)(?!x)", b"at 50\n", 0.5),
    ],
)
def test_patterns_of_users(pattern: str, output: bytes, progress: float | None) -> None:
    assert check_progress_pattern(pattern) is None
    assert after(output, pattern=pattern) == progress


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("(", "is no regular expression"),
        ("a{99999999999}", "is no regular expression"),
        ("abc", "needs one group"),
        ("(a)(b)(c)", "needs one group"),
        ("(x" + "x" * 200 + ")", "203 characters"),
        (r"((a+)+)$", "repeats what itself repeats"),
        (r"(a|a)*$", "repeats what itself repeats"),
        (r"(ab|cd)*$", "repeats what itself repeats"),
        (r"(a?b?)*$", "repeats what itself repeats"),
        (r"(\w*:?)+$", "repeats what itself repeats"),
        (r"(?:(?:a+))*(b)", "repeats what itself repeats"),
        (r"(?:(?=a+)b){5}(b)", "repeats what itself repeats"),
        (r"(?>(?:a+)*)(b)", "repeats what itself repeats"),
        (r"(a*)\1", "refers back"),
        (r"(.*.*.*.*.*.*)", "too many ways"),
        ("(" + "a?" * 60 + "a" * 60 + ")", "too many ways"),
        ("(" + "(?:a|ab)" * 20 + ")", "too many ways"),
        ("(" + "a{0,9}" * 9 + ")", "too many ways"),
        ("(" * 100 + ")" * 100, "needs one group"),
    ],
)  # fmt: skip
def test_bad_patterns_are_one_sentence(pattern: str, sentence: str) -> None:
    said = check_progress_pattern(pattern)
    assert said is not None
    assert sentence in said
    assert "\n" not in said
    with pytest.raises(ValueError, match="the progress pattern"):
        ProgressParser(pattern=pattern)


@pytest.mark.parametrize("pattern", [r"[[a](\d+)", r"[a||b](\d+)"])
def test_patterns_that_python_may_read_otherwise_one_day_are_taken_quietly(pattern: str) -> None:
    """It warns of them on stderr: the master's, the slave's and the client's."""
    assert check_progress_pattern(pattern) is None
    ProgressParser(pattern=pattern)


@pytest.mark.parametrize("pattern", [r".*.*.*.*.*(x)\b!", r"(\d+)\d+\d+\d+$!", r"(a*)a*a{0,16}a{0,14}b"])
def test_a_slow_pattern_holds_nothing_up(pattern: str) -> None:
    """The worst that is allowed stays bounded for one line, and is dropped after it."""
    assert check_progress_pattern(pattern) is None
    parser = ProgressParser(pattern=pattern)
    line = (b"1" if "d" in pattern else b"a") * 2000 + b"\n"
    before = time.thread_time()
    for _ in range(20):
        parser.feed(line)
    assert time.thread_time() - before < 4
