"""What the soak makes of what it saw."""

import pytest

from bench.soak import Look, judge, slope


def look(at_s: float, *, resident_mb: float = 50.0, files: int = 30, linked: int = 10) -> Look:
    return Look(
        at_s=at_s, resident_mb=resident_mb, files=files, threads=2, wal_mb=4.0, lag_ms=1.0, linked=linked
    )


def test_a_line_through_points() -> None:
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope([(0, 1), (1, 4), (2, 1), (3, 4)]) == pytest.approx(0.6)
    assert slope([(1, 7)]) == slope([(1, 7), (1, 9)]) == 0


def test_a_farm_that_stays_as_it_is_passes() -> None:
    """What fills in the beginning is not looked at, links that come and go are no files."""
    looks = [
        look(at * 10.0, resident_mb=50 if at > 10 else 20, files=30 + at % 3, linked=10 + at % 3)
        for at in range(100)
    ]
    rises, violations = judge(looks)
    assert violations == []
    assert rises["open files, but for links"] == pytest.approx(0)


def test_what_grows_is_told() -> None:
    looks = [look(at * 10.0, resident_mb=50 + at * 0.1, files=30 + at // 10) for at in range(100)]
    rises, violations = judge(looks)
    assert rises["resident memory"] == pytest.approx(0.1 * 82, rel=0.03)
    assert [sentence.split(":")[0] for sentence in violations] == [
        "resident memory",
        "open files, but for links",
    ]
    assert violations[0] == "resident memory: 8.20 MB more at the end (4 allowed)"
