"""The renderer that ships with the project: its pictures, its options, and how it fails."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drqueue import png
from drqueue.client.demo import tracer

SMALL = ["--size", "32x18"]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the renderer as a node does: by its path, with nothing but the standard library."""
    command = [sys.executable, "-I", "-S", tracer.__file__, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def pixels(t: float, width: int = 48, height: int = 27, samples: int = 1) -> bytes:
    return b"".join(tracer.render(t, width, height, samples))


def test_every_frame_of_the_loop_is_a_different_picture_and_none_is_blank() -> None:
    pictures = [pixels(frame / 24) for frame in range(24)]
    assert len(set(pictures)) == 24
    for picture in pictures:
        assert max(picture) - min(picture) > 120
        assert len({picture[i : i + 3] for i in range(0, len(picture), 3)}) > 200


def test_the_loop_closes() -> None:
    """The frame after the last is the first again: no pixel differs by more than rounding."""
    assert max(abs(a - b) for a, b in zip(pixels(0.0), pixels(1.0), strict=True)) <= 1


def test_the_ring_turns_half_round_in_one_loop() -> None:
    (x, _, z, *_), (later_x, _, later_z, *_) = tracer.balls_at(0.0)[1], tracer.balls_at(0.5)[1]
    assert x * later_x + z * later_z == pytest.approx(0)
    assert [ball[:3] for ball in tracer.balls_at(1.0)[1:4]] == [
        pytest.approx(ball[:3]) for ball in tracer.balls_at(0.0)[4:]
    ]


def test_a_picture_depends_on_its_arguments_alone() -> None:
    assert pixels(0.3) == pixels(0.3)


def test_the_picture_shows_the_scene() -> None:
    """Blue sky above a warm horizon, the chrome ball's highlight bright, and a shadow on the floor."""
    width, height = 160, 90
    rows = list(tracer.render(0.1, width, height, 1))
    top, horizon = rows[0][:3], rows[24][:3]
    assert top[2] > top[0]
    assert horizon[0] > horizon[2]
    assert max(map(max, rows)) >= 250
    floor = {rows[y][3 * x] for y in range(60, 90) for x in range(width)}
    assert min(floor) < 70
    assert max(floor) > 190


def test_balls_throw_shadows_on_the_floor() -> None:
    balls = tracer.balls_at(0.0)
    x, y, z = balls[0][:3]
    down = y / tracer.SUN[1]
    shaded, _ = tracer.light_at(
        balls[:1], None, x - down * tracer.SUN[0], 0, z - down * tracer.SUN[2], 0, 1, 0
    )
    lit, _ = tracer.light_at(balls[:1], None, x + down * tracer.SUN[0], 0, z + down * tracer.SUN[2], 0, 1, 0)
    assert shaded == 0.0
    assert lit == pytest.approx(tracer.SUN[1])


@given(st.floats(0, 1))
def test_no_ball_ever_leaves_the_sphere_that_spares_the_tests_for_all(t: float) -> None:
    for x, y, z, radius, square, _, _ in tracer.balls_at(t):
        away = (x * x + (y - tracer.BOUND_Y) ** 2 + z * z) ** 0.5
        assert away + radius <= tracer.BOUND_RADIUS
        assert square == pytest.approx(radius * radius)
        assert y >= radius


def test_more_samples_change_edges_and_leave_smooth_parts() -> None:
    one, four = pixels(0.2, samples=1), pixels(0.2, samples=4)
    assert one != four
    assert one[0] == pytest.approx(four[0], abs=4)


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 20)), min_size=1, max_size=5))
def test_frame_lists_keep_order_and_name_a_frame_once(parts: list[tuple[int, int]]) -> None:
    text = ",".join(str(a) if not n else f"{a}-{a + n}" for a, n in parts)
    expected = [number for a, n in parts for number in range(a, a + n + 1)]
    assert tracer.frame_list(text) == list(dict.fromkeys(expected))


@pytest.mark.parametrize("text", ["", ",", "1,", "a", "1-", "4-1", "1--", "1.5", "0-99999999", "9" * 10, "١"])
def test_what_is_no_frame_list_is_refused(text: str) -> None:
    with pytest.raises(tracer.argparse.ArgumentTypeError):
        tracer.frame_list(text)


@pytest.mark.parametrize(
    ("pattern", "frame", "name"),
    [
        ("a_####.png", 7, "a_0007.png"),
        ("#.png", 123, "123.png"),
        ("d##/a_##.png", 7, "d##/a_07.png"),
        ("#1_###.png", 7, "#1_007.png"),
        ("plain.png", 7, "plain.png"),
        ("###.png", -3, "-03.png"),
    ],
)
def test_the_number_replaces_the_last_run_of_hashes(pattern: str, frame: int, name: str) -> None:
    assert tracer.file_name(pattern, frame) == name


@settings(max_examples=25)
@given(st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_its_png_files_are_whole_and_hold_the_rows(width: int, height: int, random: object) -> None:
    rows = [random.randbytes(3 * width) for _ in range(height)]  # type: ignore[attr-defined]
    data = tracer.png(width, height, rows)
    assert png.check(data) is None
    assert png.decode_rgb(data) == (width, height, rows)


@pytest.mark.slow
def test_it_renders_a_list_tells_its_progress_and_leaves_nothing_else(tmp_path: Path) -> None:
    done = run("-o", "f_####.png", "-f", "1,3-4", *SMALL, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["f_0001.png", "f_0003.png", "f_0004.png"]
    assert all(png.check(file) is None for file in tmp_path.iterdir())
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("Saved")] == [
        f"Saved: 'f_000{frame}.png'" for frame in (1, 3, 4)
    ]
    told = [int(line[10:-1]) for line in lines if line.startswith("Progress: ")]
    assert told == sorted(set(told))
    assert told[-1] == 100
    assert len(told) > 5


@pytest.mark.slow
def test_frames_and_samples_choose_the_picture(tmp_path: Path) -> None:
    """Frame 2 of 4 is frame 7 of 24; frame 25 of 24 is frame 1."""
    for name, arguments in {
        "a": ["-f", "2", "--frames", "4"],
        "b": ["-f", "7"],
        "c": ["-f", "1"],
        "d": ["-f", "25"],
        "e": ["-f", "1", "--samples", "2"],
    }.items():
        assert run("-o", name, *arguments, *SMALL, cwd=tmp_path).returncode == 0
    a, b, c, d, e = ((tmp_path / name).read_bytes() for name in "abcde")
    assert a == b != c == d != e


@pytest.mark.slow
def test_it_runs_as_a_module(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "drqueue.client.demo.tracer",
        "-f",
        "1",
        "-o",
        str(tmp_path / "a.png"),
        *SMALL,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert png.check(tmp_path / "a.png") is None


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "required: -f"),
        (["-f", "x"], "'x' is not a frame"),
        (["-f", "4-1"], "backwards"),
        (["-f", "1", "--size", "0x9"], "'0x9' is not a size"),
        (["-f", "1", "--size", "99999x9"], "is not a size"),
        (["-f", "1", "--samples", "0"], "'0' is not a whole number"),
        (["-f", "1", "--frames", "-4"], "'-4' is not a whole number"),
        (["-f", "1", "--sleep", "nan"], "number of seconds"),
        (["-f", "1", "--sleep", "-1"], "number of seconds"),
        (["-f", "1", "--nope"], "--nope"),
        (["-f", "1", "-o", "folder/"], "names no file"),
        (["-f", "1-2", "-o", "f.png"], "need a #"),
        (["-f", "1-2", "-o", "f#/f.png"], "need a #"),
    ],
)
def test_bad_arguments_are_one_sentence_and_exit_2(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        tracer.main(arguments)
    out, err = capsys.readouterr()
    assert left.value.code == 2
    assert out == ""
    assert err.startswith("tracer: ")
    assert err.count("\n") == 1
    assert part in err


def test_a_missing_folder_is_one_sentence_and_exit_1_before_any_ray(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_rays(*_: object) -> None:
        raise AssertionError("it traced rays for a picture that cannot be saved")

    monkeypatch.setattr(tracer, "render", no_rays)
    path = tmp_path / "missing" / "f.png"
    assert tracer.main(["-f", "1", "-o", str(path), *SMALL]) == 1
    err = capsys.readouterr().err
    assert err == f"tracer: cannot write '{path}': its folder is missing or closed to us.\n"


def test_an_unwritable_name_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").mkdir()
    assert tracer.main(["-f", "1", "-o", str(tmp_path / "taken"), *SMALL]) == 1
    assert capsys.readouterr().err.startswith(f"tracer: cannot write '{tmp_path / 'taken'}': ")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_write_that_fails_midway_leaves_the_old_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.png"
    path.write_bytes(b"old")

    def full(source: str, target: str) -> None:
        assert Path(source).read_bytes() == b"new"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        tracer.save(str(path), b"new")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"f.png": b"old"}


def test_it_fails_when_told_to_and_keeps_what_was_done_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern = str(tmp_path / "f_#.png")
    assert tracer.main(["-f", "1-3", "--fail", "2-9", "-o", pattern, *SMALL]) == 1
    assert capsys.readouterr().err == "tracer: told to fail at frame 2.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["f_1.png"]


@pytest.mark.slow
def test_it_hangs_when_told_to_until_it_is_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", tracer.__file__, "-f", "1-2", "--hang", "2", *SMALL]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line == "Frame: 2\n":
                    break
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)
        finally:
            process.terminate()
        assert process.wait(10) == -signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["frame_0001.png"]


def test_sleep_comes_before_each_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    monkeypatch.setattr(tracer.time, "sleep", naps.append)
    assert tracer.main(["-f", "1-2", "--sleep", "1.5", "-o", str(tmp_path / "#"), "--size", "2x2"]) == 0
    assert naps == [1.5, 1.5]
