"""The named mutants still say what they break, and random ones are programs."""

import ast
import shutil
from pathlib import Path

import pytest

from tests.mutants import patches, random_ones
from tests.mutants.layers import MODELS, ROOT, unit_files

NAMED = 20


def test_there_are_twenty() -> None:
    assert [name.partition("_")[0] for name in patches.names()] == [f"{n:02}" for n in range(1, NAMED + 1)]


@pytest.mark.parametrize("name", patches.names())
def test_a_named_mutant_applies(name: str) -> None:
    """Whoever changes what it breaks changes the patch, too: tests/mutants/patches."""
    for path, text in patches.applied(name, ROOT).items():
        ast.parse(text, path)
        assert text != (ROOT / path).read_text()
        assert any(unit_files([path], ROOT)), f"no test is there for {path}"


def test_a_patch_whose_lines_are_gone_is_told(tmp_path: Path) -> None:
    name = patches.names()[0]
    for hunk in patches.read(name):
        file = tmp_path / hunk.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x = 1\n")
    with pytest.raises(patches.PatchError, match="0 times"):
        patches.applied(name, tmp_path)


def test_random_mutants_are_programs_and_the_same_for_a_seed(tmp_path: Path) -> None:
    folder = tmp_path / random_ones.CORES["slave"]
    folder.mkdir(parents=True)
    for name in ("orders.py", "state.py"):
        shutil.copy(ROOT / random_ones.CORES["slave"] / name, folder)
    drawn = random_ones.drawn("slave", 40, 7, tmp_path)
    assert drawn == random_ones.drawn("slave", 40, 7, tmp_path)
    assert drawn != random_ones.drawn("slave", 40, 8, tmp_path)
    plain = {path.name: ast.dump(ast.parse(path.read_text())) for path in folder.iterdir()}
    for mutant in drawn:
        assert ast.dump(ast.parse(mutant.applied(tmp_path))) != plain[Path(mutant.path).name], mutant.told


def test_what_is_left_alone_is_no_mutant(tmp_path: Path) -> None:
    folder = tmp_path / random_ones.CORES["slave"]
    folder.mkdir(parents=True)
    (folder / "one.py").write_text(
        '"""Words."""\n\n__slots__ = (1,)\n\n\ndef two(x: int = 3) -> bool:\n    """Words."""\n'
        '    assert x > 1, f"not {x + 1}"\n    return x < 5\n'
    )
    found = random_ones.all_of("slave", tmp_path)
    assert {m.new for m in found} == {"(3 + 1)", "x <= 5", "(5 + 1)"}


def test_the_models_are_there() -> None:
    assert all((ROOT / path).exists() for path in MODELS)


def test_equivalent_ones_are_still_there() -> None:
    """Of a line that was changed nobody knows any more what its mutants come to."""
    known = random_ones.equivalent()
    told = {mutant.told for core in random_ones.CORES for mutant in random_ones.every(core, ROOT)}
    assert not known - told
