"""Declared outputs: their names, and whether a frame really wrote them."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.png import encode_rgb
from drqueue.slave.outputs import expand_output, snapshot, verify

PNG = encode_rgb(2, 2, [b"abcdef"] * 2)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("f_{frame}.png", ["f_7.png", "f_-12.png"]),
        ("f_{frame:04d}.png", ["f_0007.png", "f_-012.png"]),
        ("f_{frame:04}.png", ["f_0007.png", "f_-012.png"]),
        ("f_{frame:4d}.png", ["f_   7.png", "f_ -12.png"]),
        ("f_####.png", ["f_0007.png", "f_-0012.png"]),
        ("f_#.png", ["f_7.png", "f_-12.png"]),
        ("f_%04d.png", ["f_0007.png", "f_-012.png"]),
        ("f_%d.png", ["f_7.png", "f_-12.png"]),
        ("100%%_%d", ["100%_7", "100%_-12"]),
        ("shot#1/f_####.png", ["shot#1/f_0007.png", "shot#1/f_-0012.png"]),
        ("####/pic.png", ["0007/pic.png", "-0012/pic.png"]),
        ("{frame}/%d_#.png", ["7/%d_#.png", "-12/%d_#.png"]),
        ("%d/#.png", ["7/#.png", "-12/#.png"]),
        ("{{x}}_{frame}", ["{x}_7", "{x}_-12"]),
        ("{{frame}}_##", ["{frame}_07", "{frame}_-12"]),
        ("{job}/{name}_{frame}", ["3/a#b_7", "3/a#b_-12"]),
        ("{name}_##", ["a#b_07", "a#b_-12"]),
        ("movie.mp4", ["movie.mp4"]),
        ("50%_done", ["50%_done"]),
    ],
)
def test_patterns(pattern: str, names: list[str]) -> None:
    assert expand_output(pattern, [7, -12, 7], {"job": 3, "name": "a#b"}) == names


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("{frame", "single {"),
        ("frame}", "single }"),
        ("{layer}", "unknown field {layer}; there are frame, job"),
        ("{}", "unknown field {}"),
        ("{job:04d}", "only {frame} takes a format"),
        ("{frame:x}", "write the frame's number as"),
        ("{frame:0999999999d}", "write the frame's number as"),
        ("%0999999999d", "write the frame's number as"),
        ("{frame.__class__}", "unknown field"),
    ],
)
def test_bad_patterns_are_one_sentence(pattern: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^output ") as caught:
        expand_output(pattern, [1], {"job": 3})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text("{}#%0d4frame:", max_size=20), st.lists(st.integers(-(10**6), 10**6), max_size=3))
def test_any_pattern_is_names_or_a_sentence(pattern: str, members: list[int]) -> None:
    try:
        names, said = expand_output(pattern, members), "output "
    except ValueError as error:
        names, said = [], str(error)
    assert said.startswith("output ")
    assert len(names) == len(set(names)) <= len(members)


@given(st.integers(-(10**9), 10**9), st.integers(1, 20))
def test_percent_is_as_in_c_and_hashes_count_digits(number: int, width: int) -> None:
    assert expand_output(f"%0{width}d", [number]) == [f"%0{width}d" % number]
    assert expand_output("#" * width, [number]) == [
        ("-" if number < 0 else "") + str(abs(number)).zfill(width)
    ]


def test_relative_names_are_of_the_working_directory() -> None:
    assert expand_output("a/{frame}", [1], cwd="/w") == ["/w/a/1"]
    assert expand_output("/a/{frame}", [1], cwd="/w") == ["/a/1"]


def test_new_and_changed_files_are_well(tmp_path: Path) -> None:
    a, b, c = (str(tmp_path / name) for name in ("a", "b", "c.png"))
    Path(b).write_text("old")
    Path(c).write_bytes(PNG)
    before = snapshot([a, b, c])
    Path(a).write_text("new")
    Path(b).write_text("longer")
    Path(c + ".tmp").write_bytes(PNG)
    os.utime(c + ".tmp", ns=(1, os.stat(c).st_mtime_ns))
    os.rename(c + ".tmp", c)
    assert verify([a, b, c], before) is None


def test_a_file_from_the_future_that_was_rewritten_is_well(tmp_path: Path) -> None:
    """A file server's clock may be hours off: only a difference counts, never an order."""
    path = str(tmp_path / "a")
    Path(path).write_text("old")
    os.utime(path, ns=(1, 2**62))
    before = snapshot([path])
    Path(path).write_text("new")
    assert os.stat(path).st_mtime_ns < 2**62
    assert verify([path], before) is None


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    names = ["missing", "empty", "same", "folder", "cut.png", "CUT.PNG", "pipe"]
    paths = {name: str(tmp_path / name) for name in names}
    Path(paths["same"]).write_text("old")
    before = snapshot(paths.values())
    Path(paths["empty"]).touch()
    Path(paths["folder"]).mkdir()
    Path(paths["cut.png"]).write_bytes(PNG[:-12])
    Path(paths["CUT.PNG"]).write_bytes(b"x" + PNG)
    os.mkfifo(paths["pipe"])
    said = {name: verify([path], before) for name, path in paths.items()}
    start = {name: f"output {path} " for name, path in paths.items()}
    assert said == {
        "missing": start["missing"] + "is missing",
        "empty": start["empty"] + "is empty",
        "same": start["same"] + "is the same file as before the start",
        "folder": start["folder"] + "is not a file",
        "cut.png": start["cut.png"] + "is not a whole PNG: it ends early, without IEND",
        "CUT.PNG": start["CUT.PNG"] + "is not a whole PNG: it does not begin like a PNG",
        "pipe": start["pipe"] + "is not a file",
    }


def test_the_first_bad_one_is_named(tmp_path: Path) -> None:
    good, bad = str(tmp_path / "good"), str(tmp_path / "bad")
    before = snapshot([good, bad])
    Path(good).write_text("x")
    assert verify([good, bad], before) == f"output {bad} is missing"


def test_what_cannot_be_looked_at_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = str(tmp_path / "file" / "a")
    assert verify([path], snapshot([path])) == f"output {path} cannot be looked at: Not a directory"
