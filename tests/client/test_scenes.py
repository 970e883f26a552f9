"""The scenes of the demo: each renderer's job, prepared and run here without a farm."""

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from drqueue import png
from drqueue.client.demo import scenes
from drqueue.proto.placeholders import fill

SIZE = (48, 27)
#: A folder's name that holds everything that means something to some renderer or placeholder.
ODD = "odd {frame} ##_%04d 'name'"


def attempt(scene: scenes.DemoScene, start: int) -> subprocess.CompletedProcess[bytes]:
    """Run one attempt of the job as a slave would: placeholders filled in, nearly no environment."""
    end = start + scene.chunk - 1
    argv = [word.format(frame=start, start=start, end=end) for word in scene.argv]
    environment = {"PATH": os.environ["PATH"], **scene.env}
    return subprocess.run(
        argv,
        cwd=scene.cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=100,
        check=False,
    )


def render(scene: scenes.DemoScene, *starts: int) -> list[Path]:
    """Run the attempts that begin at these frames and return the pictures, which must be whole and good."""
    before = set(scene.cwd.iterdir())
    for start in starts:
        done = attempt(scene, start)
        assert done.returncode == 0, done.stdout + done.stderr
    wanted = [scene.pictures()[frame - 1] for start in starts for frame in range(start, start + scene.chunk)]
    assert set(scene.cwd.iterdir()) - before == set(wanted)
    seen = set()
    for path in wanted:
        assert png.check(path) is None
        width, height, rows = png.decode_rgb(path.read_bytes())
        assert (width, height) == SIZE
        picture = b"".join(rows)
        assert max(picture) - min(picture) > 60
        seen.add(picture)
    assert len(seen) == len(wanted)
    return wanted


@pytest.fixture
def odd_folder(tmp_path: Path) -> Path:
    """A folder with an odd name."""
    return tmp_path / ODD


@pytest.mark.slow
def test_tracer(odd_folder: Path) -> None:
    scene = scenes.prepare("tracer", SIZE, 24, odd_folder)
    assert (scene.frames, scene.chunk, scene.cores) == ("1-24", 1, 1)
    render(scene, 1, 7)


@pytest.mark.slow
@pytest.mark.needs("povray")
def test_povray(odd_folder: Path) -> None:
    scene = scenes.prepare("povray", SIZE, 24, odd_folder)
    assert (scene.frames, scene.chunk, scene.cores) == ("1-24", 1, 1)
    render(scene, 1, 7)
    assert re.search(rb"Rendered \d+ of \d+ pixels", attempt(scene, 1).stderr)


@pytest.fixture(scope="module")
def blender_scene(tmp_path_factory: pytest.TempPathFactory) -> scenes.DemoScene:
    """Eight frames, in such a folder; Blender takes its time to start, so they are prepared once."""
    return scenes.prepare("blender", SIZE, 8, tmp_path_factory.mktemp("blender") / ODD)


@pytest.mark.slow
@pytest.mark.needs("blender")
def test_blender(blender_scene: scenes.DemoScene) -> None:
    assert (blender_scene.frames, blender_scene.chunk, blender_scene.cores) == ("1-8", 2, 1)
    render(blender_scene, 1, 5)


@pytest.mark.slow
@pytest.mark.needs("blender")
def test_blender_fails_loudly_without_its_scene(tmp_path: Path, blender_scene: scenes.DemoScene) -> None:
    """Blender exits 0 for much that went wrong; a scene that is not there must not be among that."""
    assert attempt(replace(blender_scene, cwd=tmp_path), 1).returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_what_the_output_pattern_says(tmp_path: Path) -> None:
    scene = scenes.prepare("tracer", SIZE, 3, tmp_path / "made" / "here")
    assert scene.pictures() == [tmp_path / "made" / "here" / f"frame_000{i}.png" for i in (1, 2, 3)]
    assert scene.cwd.is_dir()


def test_a_relative_folder_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert scenes.prepare("tracer", SIZE, 1, Path("out")).cwd == tmp_path / "out"


@pytest.mark.parametrize("program", ["povray", "blender"])
def test_a_missing_renderer_is_one_helpful_sentence(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(scenes.SceneError) as refused:
        scenes.prepare(program, SIZE, 24, tmp_path / "out")
    assert str(refused.value) == (
        f"{program} was not found in PATH; "
        f"install it (Debian: apt install {program}) or choose --renderer tracer"
    )


def test_an_unknown_renderer_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(scenes.SceneError, match=r"'maya'; choose one of tracer, povray, blender"):
        scenes.prepare("maya", SIZE, 24, tmp_path)


@pytest.mark.parametrize(("size", "frames"), [((0, 9), 1), ((9, -1), 1), ((9, 9), 0)])
def test_nothing_to_render_is_refused(size: tuple[int, int], frames: int, tmp_path: Path) -> None:
    with pytest.raises(scenes.SceneError, match="at least one"):
        scenes.prepare("tracer", size, frames, tmp_path)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(scenes.SceneError, match=r"cannot prepare the scene in .*: ") as refused:
        scenes.prepare("tracer", SIZE, 1, tmp_path / "file" / "out")
    assert "\n" not in str(refused.value)


def fake_blender(folder: Path, script: str) -> Path:
    program = folder / "bin" / "blender"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'Error: no such thing'; echo quit; exit 3", r"\(exit status 3\): Error: no such thing"),
        ("echo 'Error: disk full'; : > wave.blend; exit 1", r"\(exit status 1\): Error: disk full"),
        ("exit 0", r"\(exit status 0\): no output"),
        ("echo only words", r"\(exit status 0\): only words"),
    ],
)
def test_a_blender_that_makes_no_scene_is_noticed_even_if_an_old_scene_lies_there(
    script: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(fake_blender(tmp_path, script).parent))
    (tmp_path / "wave.blend").write_text("of an earlier demo")
    with pytest.raises(scenes.SceneError, match=says):
        scenes.prepare("blender", SIZE, 4, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("frames", "chunk"), [(1, 1), (4, 1), (8, 2), (24, 4), (1000, 4)])
def test_blender_gets_several_frames_at_once_but_leaves_some_for_other_slaves(
    frames: int, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = fake_blender(tmp_path, 'echo "$@" > words; : > wave.blend')
    monkeypatch.setenv("PATH", str(program.parent))
    scene = scenes.prepare("blender", SIZE, frames, tmp_path)
    assert scene.chunk == chunk
    assert scene.argv[0] == str(program)
    assert scene.argv.index("wave.blend") < scene.argv.index("-o") < scene.argv.index("-s")
    assert scene.argv[-1] == "-a"
    # The user's own start-up file is left out, and a script's error counts (said before the script is named).
    careful = "-b --factory-startup --python-exit-code 3 "
    assert (tmp_path / "words").read_text().startswith(f"{careful}--python ")
    assert " ".join(scene.argv[1:]).startswith(f"{careful}wave.blend ")


def test_braces_in_a_path_are_not_placeholders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes.sys, "executable", "/opt/{odd}/{frame}/python")
    scene = scenes.prepare("tracer", SIZE, 1, tmp_path)
    assert fill(scene.argv[0], lambda name: 7) == "/opt/{odd}/{frame}/python"
