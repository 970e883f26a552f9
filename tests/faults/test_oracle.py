"""The harness itself: a frame that writes its life down, what an oracle makes of it, and the levels."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from drqueue.proto.views import AttemptView, FrameView
from tests.faults import ledger, levels, oracle
from tests.faults.oracle import Line


def frame(
    folder: Path, number: int, most_s: float, attempt: int = 1, *words: str
) -> "subprocess.Popen[bytes]":
    """Start a frame as a slave does."""
    env = {"DRQUEUE_ATTEMPT": f"7/0/{number}/{attempt}", "DRQUEUE_FRAME": str(number), "DRQUEUE_COMPID": "2"}
    argv = [sys.executable, "-I", "-S", ledger.__file__, str(folder), str(most_s), *words]
    return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE)


def lines(folder: Path) -> list[Line]:
    made = object.__new__(oracle.Oracle)
    made.folder = folder
    return made.lines()


def test_a_frame_writes_its_life_down(tmp_path: Path) -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    with frame(tmp_path, 14, 0.0) as process:
        assert process.communicate()[0] == ledger.log_of(14)
    assert process.returncode == ledger.code_of(14) == 3
    start, end = lines(tmp_path)
    assert (start.word, start.attempt, start.frame, start.slave, start.number) == (
        *("start", "7/0/14/1", "7/0/14", "2"),
        14,
    )
    assert end.word == "end"
    assert before - 0.001 <= start.at <= end.at


def test_two_lives_at_a_time_are_seen_and_one_after_another_are_none(tmp_path: Path) -> None:
    with frame(tmp_path, 1, 100.0) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with frame(tmp_path, 1, 0.0, 2) as second:
            assert second.wait() == 99
        first.kill()
    with frame(tmp_path, 1, 0.0, 3) as third:
        assert third.wait() == 0
    assert [line.word for line in lines(tmp_path)] == ["start", "overlap", "start", "end"]
    assert oracle.overlaps(lines(tmp_path)) == ["7/0/1/2 met another life of its frame"]


def test_a_child_that_outlives_its_frame_keeps_no_lock(tmp_path: Path) -> None:
    """Else what a renderer leaves behind would look like another life of its frame."""
    with frame(tmp_path, 2, 0.0, 1, "stray") as first:
        assert first.wait() == 0
    stray = int((tmp_path / "stray").read_text())
    try:
        assert os.readlink(f"/proc/{stray}/exe").endswith("sleep")
        with frame(tmp_path, 2, 0.0, 2) as second:
            assert second.wait() == 0
    finally:
        os.kill(stray, 9)
    assert oracle.overlaps(lines(tmp_path)) == []


def line(word: str, at: float, attempt: int) -> Line:
    return Line(word, at, f"1/0/0/{attempt}", "0", 1)


def test_lives_that_overlap_by_their_clocks_are_seen() -> None:
    """Where the disk of the ledger has locks that do not hold."""
    one, other = [line("start", 1, 1), line("end", 3, 1)], [line("start", 2, 2), line("end", 4, 2)]
    assert oracle.overlaps([*one, *other]) == ["1/0/0/2 began before 1/0/0/1 ended"]
    later = [line("start", 3.5, 2), line("end", 4, 2)]
    assert oracle.overlaps([*one, *later]) == []
    assert oracle.overlaps([line("start", 1, 1), *later]) == []  # the first was killed


def view(**fields: Any) -> FrameView:
    common: dict[str, Any] = {"job": 1, "layer": 0, "layer_name": "a", "index": 0, "last": 1, "count": 1}
    return FrameView(**{**common, "number": 1, "state": "DONE", "attempt": 1, "code": 0, **fields})


def attempt(number: int, reason: str = "") -> AttemptView:
    times = {"assigned_at": 0, "started_at": 0, "ended_at": 0}
    common: Mapping[str, Any] = {"job": 1, "layer": 0, "frame": 0, "number": 1, "slave": "s", "slave_id": 0}
    return AttemptView(**common, **times, attempt=number, outcome="lost" if reason else "done", reason=reason)


LIFE = [line("start", 1, 1), line("end", 2, 1)]
NEXT = [line("start", 3, 2), line("end", 4, 2)]


@pytest.mark.parametrize(
    ("seen", "tries", "lives", "lost", "wrong"),
    [
        (view(), (), [LIFE], (), ""),
        (view(), (), [[]], (), "wrote {}"),
        (view(), (), [LIFE[:1]], (), "wrote {'start': 1}"),
        (
            view(attempt=2),
            (attempt(1, "lease"), attempt(2)),
            [[*LIFE] * 2, NEXT],
            {"lease"},
            "started 2 times",
        ),
        (view(state="FAILED"), (), [LIFE], (), "is FAILED with code 0"),
        (view(code=9), (), [LIFE], (), "is DONE with code 9"),
        (view(number=14, state="FAILED", code=3), (), [LIFE], (), ""),
        (view(number=14, state="FAILED", code=None), (), [LIFE], (), "code None"),
        (view(attempt=2), (attempt(1, "lost"), attempt(2)), [[], NEXT], (), ""),
        (view(attempt=2), (attempt(1, "lost"), attempt(2)), [LIFE[:1], NEXT], (), "tried again after 'lost'"),
        (view(attempt=2), (attempt(1, "lease"), attempt(2)), [LIFE[:1], NEXT], {"lease"}, ""),
        (
            view(attempt=2),
            (attempt(1, "exit-code"), attempt(2)),
            [LIFE, NEXT],
            {"lease"},
            "tried again after",
        ),
    ],
)
def test_what_is_wrong_about_a_frame(
    seen: FrameView, tries: tuple[AttemptView, ...], lives: list[list[Line]], lost: Any, wrong: str
) -> None:
    found = oracle.judge(seen, tries, lives, lost)
    assert len(found) == bool(wrong)
    assert all(wrong in text for text in found)


def test_levels_and_dice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def drawn(name: str) -> tuple[int, list[float]]:
        dice = levels.rng(name)
        return levels.count(name, ci=1, nightly=2, release=3), [dice.random() for _ in range(3)]

    monkeypatch.delenv(levels.VARIABLE, raising=False)
    first = drawn("F1")
    assert first == drawn("F1")
    assert first[1] != drawn("F2")[1]
    assert first[0] == 1
    assert levels.timeout_s() > 0
    monkeypatch.setenv(levels.VARIABLE, "nightly:77")
    capsys.readouterr()
    again = drawn("F1")
    assert again == drawn("F1")
    assert (again[0], again[1] == first[1]) == (2, False)
    assert "F1: again with DRQUEUE_FAULTS=nightly:77\nF1: 2 times\n" in capsys.readouterr().out
    monkeypatch.setenv(levels.VARIABLE, "release")
    assert drawn("F1")[1] != drawn("F1")[1]
    assert levels.timeout_s() == 0
    monkeypatch.setenv(levels.VARIABLE, "weekly")
    with pytest.raises(ValueError, match="'weekly'"):
        levels.level()
