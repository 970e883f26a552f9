"""Tables, quantities and JSON: nothing wider than the screen, nothing that steers the terminal."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.client.cli import output
from drqueue.client.cli.jobs import job_table
from drqueue.client.cli.output import Cell, Column, Table, bar, cells, clean, cut, duration, percent
from drqueue.proto.views import Counts
from tests.client.peer import frame_view, job_view


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@given(st.text())
def test_cleaned_text_cannot_steer_a_terminal(text: str) -> None:
    assert clean(text).isprintable()


@given(st.text(max_size=50), st.integers(1, 30))
def test_cut_text_fits(text: str, room: int) -> None:
    shown = cut(clean(text), room)
    assert cells(shown) <= room
    if cells(clean(text)) <= room:
        assert shown == clean(text)
    else:
        assert shown.endswith("…")


def test_wide_and_combining_characters_are_counted_as_they_show() -> None:
    assert cells("日本") == 4
    assert cells("e\u0301") == 1
    assert cut("日本語", 5) == "日本…"
    assert cut("日本語", 4) == "日…"


def test_columns_line_up_and_numbers_stand_right() -> None:
    table = Table(Column("N", right=True), Column("NAME"), Column("X", right=True))
    assert table.lines([("1", "a", "22"), ("333", "bb", "4")]) == [
        "  N  NAME   X",
        "  1  a     22",
        "333  bb     4",
    ]


def test_a_later_batch_keeps_the_columns_of_the_first() -> None:
    table = Table(Column("N", right=True), Column("NAME", least=4))
    assert len(table.lines([("1", "abcdef")])) == 2
    assert table.lines([("2", "abcdefgh")]) == ["2  abcde…"]


@given(
    name=st.text(max_size=127),
    owner=st.text(max_size=40),
    priority=st.integers(0, 2**32 - 1),
    number=st.integers(0, 10**6),
    running=st.integers(0, 9999),
)
def test_a_table_of_jobs_fits_80_columns(
    name: str, owner: str, priority: int, number: int, running: int
) -> None:
    view = job_view(
        number,
        name=name,
        owner=owner,
        priority=priority,
        counts=Counts(total=20000, running=running),
        chunk_counts=Counts(total=20000, running=running),
    )
    for line in job_table((view,)):
        assert cells(line) <= 80
        assert line.isprintable()


def test_colours_are_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    line = [Cell("DONE", "green")]
    assert Table(Column("S")).lines([line])[1] == "DONE"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Table(Column("S")).lines([line])[1] == "\x1b[32mDONE\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert Table(Column("S")).lines([line])[1] == "DONE"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.42, "0.4s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (185, "3m05s"),
        (3599.7, "1h00m"),
        (18240, "5h04m"),
        (86400 * 3 + 7200, "3d02h"),
        (86400 * 5000, "5000d"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(0, 86400 * 9999))
def test_durations_are_short(seconds: float) -> None:
    assert len(duration(seconds)) <= 6


@given(st.floats(-1, 2))
def test_bars_have_their_width_and_only_the_end_is_full(done: float) -> None:
    assert len(bar(done, 8)) == 8
    assert (percent(done) == "100%") == (done >= 1)
    assert (bar(done, 8) == "█" * 8) == (done >= 1)


def test_a_job_is_at_100_percent_only_when_it_is_finished() -> None:
    assert "99%" in job_table((job_view(1, "ACTIVE", progress=1.0),))[1]
    assert "100%" in job_table((job_view(1, "FINISHED", progress=1.0),))[1]


def test_moments_name_the_day_unless_it_is_today() -> None:
    now = time.time()
    assert output.moment(0) == ""
    assert len(output.moment(now)) == 8
    assert len(output.moment(now - 400 * 86400)) == 19


def test_json_has_every_field_also_those_at_their_defaults() -> None:
    found = json.loads(output.json_text(frame_view(3)))
    assert found["number"] == 3
    assert found["reason"] == ""
    assert found["code"] is None
    assert set(found) == set(type(frame_view()).__struct_fields__)
