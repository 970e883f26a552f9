"""The bench's yardstick measures something, and says why when it cannot."""

from pathlib import Path

import pytest

from bench import spawn


@pytest.mark.slow
@pytest.mark.needs("cc")
def test_the_raw_rate_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled where nobody else's build is, then used again."""
    (tmp_path / "spawn.c").write_bytes((spawn.HERE / "spawn.c").read_bytes())
    monkeypatch.setattr(spawn, "HERE", tmp_path)
    assert spawn.measure_spawn_rate(101) > 10
    built = (tmp_path / "out" / "spawn").stat()
    assert spawn.measure_spawn_rate(2) > 1
    assert (tmp_path / "out" / "spawn").stat().st_mtime_ns == built.st_mtime_ns
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["spawn"]
    with pytest.raises(spawn.SpawnError, match="usage: spawn TOTAL"):
        spawn.measure_spawn_rate(0)


@pytest.mark.needs("cc")
def test_a_source_that_does_not_compile_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spawn.c").write_text("int main(void) { return x; }\n")
    monkeypatch.setattr(spawn, "HERE", tmp_path)
    with pytest.raises(spawn.SpawnError, match=r"spawn\.c could not be compiled by \S+: [^\n]+\Z"):
        spawn.measure_spawn_rate(2)


def test_without_a_compiler_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawn, "HERE", tmp_path)
    (tmp_path / "spawn.c").touch()
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(spawn.SpawnError, match="needs a C compiler: install one"):
        spawn.measure_spawn_rate(2)
