"""The commands of all kinds, run by a real shell with renderers that record."""

import shlex

import pytest

from drqueue.client.kinds import KINDS
from tests.client.kinds.golden import ROWS, Row
from tests.client.kinds.helpers import Bench

#: Kinds whose calls other tests of this folder look at.
ELSEWHERE = {"blender", "ffmpeg", "tracer"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.kind}-{row.frames}-{len(row.params)}")
def test_renderers_are_called_as_the_table_says(bench: Bench, row: Row) -> None:
    params = {name: str(bench.bin) if value == "BIN" else value for name, value in row.params.items()}
    made = bench.calls(row.kind, row.frames, row.chunk, **params)
    assert made == [shlex.split(call) for call in row.calls]


def test_every_kind_has_a_row() -> None:
    assert {row.kind for row in ROWS} | ELSEWHERE == set(KINDS)


def test_every_kind_of_the_original_is_there() -> None:
    original = (
        "general maya blender bmrt 3delight pixie mentalray lightwave aftereffects shake aqsis terragen nuke "
        "turtle mantra xsi luxrender vray 3dsmax cinema4d"
    )
    assert set(original.split()) | {"povray", "ffmpeg", "tracer"} == set(KINDS)


@pytest.mark.parametrize("kind", sorted({row.kind for row in ROWS}))
def test_every_parameter_changes_a_command(kind: str) -> None:
    """A parameter that no row gives might do nothing."""
    given = {name for row in ROWS if row.kind == kind for name in row.params}
    assert {param.name for param in KINDS[kind].params} - given - {"parts", "format"} == set()
