"""Everything that reads bytes, on damaged inputs: a little at each run of the tests; `make fuzz` does more.

How much is counted in runs and drawn from a fixed seed, so that it is the same everywhere.
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import engine
from tests.fuzz.engine import Target, attempt, quiet
from tests.fuzz.targets import TARGETS

#: Far above what the slowest input takes, on whatever machine: only what never ends is found here.
PATIENCE_S = 20.0
ALL = pytest.mark.parametrize("name", TARGETS)
FOUND = [(name, path) for name, target in TARGETS.items() for path in engine.kept(target)]


def _passes(target: Target, data: bytes) -> None:
    with quiet(PATIENCE_S):
        finding, _ = attempt(target, data, PATIENCE_S)
    assert finding is None, finding.text


@pytest.mark.parametrize(("name", "path"), FOUND, ids=[f"{name}-{path.name}" for name, path in FOUND])
def test_what_was_found_once_is_found_no_more(name: str, path: Path) -> None:
    """Each input that ever broke something."""
    _passes(TARGETS[name], path.read_bytes())


@ALL
def test_seeds_pass(name: str) -> None:
    """What damage begins with is in order, and most of it is accepted: else only refusals would be tried."""
    target, refused = TARGETS[name], 0
    for seed in target.seeds():
        _passes(target, seed)
        try:
            target.run(seed)
        except target.errors:
            refused += 1
    assert refused <= len(target.seeds()) // 4 or name == "handshake", "there only Hi, and Welcome, pass"


@ALL
def test_damaged_inputs_break_nothing(name: str) -> None:
    """Only declared errors, with one sentence, and neither time nor memory without end."""
    target = TARGETS[name]
    tally = engine.fuzz(target, 0, runs=target.runs, limit_s=PATIENCE_S)
    assert tally.runs == target.runs
    again = f"python -m tests.fuzz --target {name} --runs 1"
    assert not tally.findings, "\n".join(
        f"{found.text}{found.data[:300]!r}\n{again}" for found in tally.findings
    )


def _broken(data: bytes) -> None:
    if b"\xff" in data:
        raise KeyError("not declared")
    if len(data) > 100:
        raise ValueError("declared, but not\none sentence")
    if data[:1] == b"h":
        while True:
            pass
    if data[:1] == b"m":
        b"x" * (100 << 20)
    raise ValueError("declared")


def _turned(_rng: Random, data: bytes, _donors: Sequence[bytes]) -> bytes:
    """Every byte in turn."""
    return bytes((byte + 0x55) % 256 for byte in data)


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"x", None),
        (b"\xff", "KeyError"),
        (b"x" * 101, "ValueError"),
        (b"h", "HangError"),
        (b"m", "memory"),
    ],
)
def test_findings_are_told(data: bytes, place: str | None) -> None:
    """Errors that are not declared, declared ones that are no sentence, endless loops, and memory."""
    target = Target("broken", _broken, lambda: [b"ab"], _turned, (ValueError,), 10)
    with quiet():
        finding, _ = attempt(target, data, 1.0)
    assert (finding and finding.place.split()[0]) == place


def test_a_finding_is_cut_down_and_kept(tmp_path: Path) -> None:
    """The input that is kept is the smallest that was met, under a name made of it."""
    target = Target("broken", _broken, lambda: [b"a" * 40 + b"\xaa"], _turned, (ValueError,), 5)
    tally = engine.fuzz(target, 0, runs=5)
    assert [(found.place.split()[0], found.data) for found in tally.findings] == [("KeyError", b"\xff")]
    path = engine.keep(target, tally.findings[0], tmp_path)
    assert path.parent == tmp_path / "broken"
    assert path.read_bytes() == b"\xff"


@pytest.mark.parametrize("name", ["codec", "frames", "state"])
def test_the_same_seed_is_the_same_inputs(name: str) -> None:
    """Else no failure of another machine could be repeated."""

    def drawn(seed: int) -> list[bytes]:
        ended: list[str] = []
        found = []
        for data in engine.inputs(TARGETS[name], seed, ended):
            found.append(data)
            ended.append(str(len(data) % 3))
            if len(found) == 20:
                return found
        raise AssertionError

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
