"""The kind `blender` with Blender, on a real farm; each of its traps is one test."""

import subprocess
from pathlib import Path

import pytest

from drqueue.client.demo.scenes import prepare
from tests.client.kinds.test_real import failed, farm, folder, pictures, submit
from tests.e2e.helpers import Up

pytestmark = [pytest.mark.slow, pytest.mark.needs("blender")]
__all__ = ["farm", "folder"]
SIZE = (32, 19)


@pytest.fixture(scope="module")
def blend(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene with an animation, which writes elsewhere, at another size, and keeps pictures that exist."""
    made = prepare("blender", SIZE, 12, tmp_path_factory.mktemp("blend")).cwd / "wave.blend"
    change(
        made,
        "render.use_overwrite, render.use_placeholder = False, True",
        "bpy.data.scenes.new('Empty')",
        "camera = bpy.data.objects.new('Second', bpy.data.cameras.new('Second'))",
        "scene.collection.objects.link(camera)",
        "camera.location, camera.rotation_euler = (0, 0, 9), (0, 0, 0)",
        "scene.timeline_markers.new('cut', frame=1).camera = scene.camera",
        "scene.cycles.samples = 2",
    )
    return made


def change(blend: Path, *lines: str, name: str = "") -> Path:
    """Change a scene inside Blender, and save it (under another name)."""
    new = blend.with_name(name) if name else blend
    code = [
        "import bpy",
        "scene = bpy.context.scene",
        "render = scene.render",
        *lines,
        f"bpy.ops.wm.save_as_mainfile(filepath={str(new)!r})",
    ]
    subprocess.run(
        ["blender", "-b", "--python-exit-code", "3", str(blend), "--python-expr", "\n".join(code)],
        check=True,
        capture_output=True,
        timeout=100,
    )
    return new


def test_animation_with_step_and_rest(farm: Up, folder: Path, blend: Path) -> None:
    """Chunks 1 3 5, 7 9 11: whole pictures under the names asked for, at half size, although some exist."""
    (folder / "a_0003.png").write_bytes(b"half a pict")
    job = submit(
        farm,
        "blender",
        "--frames",
        "1-12x2",
        "--chunk",
        3,
        scene=blend,
        output=folder / "a_####.png",
        percentage=50,
    )
    frames = farm.cli.done(job)
    made = pictures(folder)
    assert list(made) == [f"a_{number:04d}.png" for number in range(1, 13, 2)]
    assert {(width, height) for width, height, _ in made.values()} == {(16, 9)}
    assert len({pixels for _, _, pixels in made.values()}) == 6
    assert len(frames) == 2


def test_frames_that_count_down_and_names_without_a_number(farm: Up, folder: Path, blend: Path) -> None:
    """`-s 3 -e 2 -a` would render nothing, with exit status 0."""
    job = submit(farm, "blender", "--frames", "3-2", "--chunk", 2, scene=blend, output=folder / "b.jpg")
    farm.cli.done(job)
    assert sorted(path.name for path in folder.iterdir()) == ["b0002.jpg", "b0003.jpg"]


def test_output_beside_the_scene(farm: Up, folder: Path, blend: Path) -> None:
    scene = folder / "own.blend"
    scene.write_bytes(blend.read_bytes())
    params = {"scene": scene, "output": "//out_#", "format": "OPEN_EXR", "engine": "CYCLES"}
    farm.cli.done(submit(farm, "blender", "--frames", "4", **params))
    assert (folder / "out_4.exr").read_bytes()[:4] == b"\x76\x2f\x31\x01"


def test_strips_make_the_whole_picture(farm: Up, folder: Path, blend: Path) -> None:
    """19 rows in 4 strips, from the top; put together they are the picture of one call."""
    common = {"scene": blend, "width": 40, "height": 19}
    farm.cli.done(submit(farm, "blender", "--frames", "5", **common, output=folder / "whole.png"))
    strips = {**common, "render_type": "single", "still": 5, "output": folder / "strip_#.png"}
    farm.cli.done(submit(farm, "blender", "--frames", "1-4", "--chunk", 2, **strips))
    (whole,) = pictures(folder, "whole*").values()
    parts = pictures(folder, "strip*")
    assert list(parts) == [f"strip_{number}.png" for number in range(1, 5)]
    assert [part[0] for part in parts.values()] == [40] * 4
    assert [part[1] for part in parts.values()] == [5, 5, 5, 4]
    joined = b"".join(part[2] for part in parts.values())
    # Cycles' grain depends on where a picture begins; a row too many or too few would be far more.
    assert 3 * apart(joined, whole[2]) < apart(joined, whole[2][3 * 40 :] + whole[2][: 3 * 40])


def apart(one: bytes, two: bytes) -> float:
    """How far two pictures are apart, on average."""
    assert len(one) == len(two)
    return sum(abs(a - b) for a, b in zip(one, two, strict=True)) / len(one)


def test_another_camera_looks_from_elsewhere(farm: Up, folder: Path, blend: Path) -> None:
    """Although a marker of the timeline binds the scene's own."""
    for name, params in (("a", {}), ("b", {"camera": "Second"})):
        job = submit(farm, "blender", "--frames", "5", scene=blend, output=folder / f"{name}.png", **params)
        farm.cli.done(job)
    one, two = pictures(folder).values()
    assert one != two


def test_a_script_may_change_the_scene(farm: Up, folder: Path, blend: Path) -> None:
    script = folder / "scr ipt.py"
    script.write_text("import bpy; bpy.context.scene.render.resolution_x = 48\n")
    params = {"scene": blend, "output": folder / "a.png", "python": script}
    farm.cli.done(submit(farm, "blender", "--frames", "5", **params))
    assert pictures(folder)["a0005.png"][:2] == (48, 19)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"scene_name": "Nope"}, "there is no scene 'Nope' in this file"),
        ({"scene_name": "Empty"}, "no camera"),
        ({"camera": "Nope"}, "there is no camera 'Nope' in scene 'Scene'"),
        ({"engine": "NOPE"}, "engine not found"),
        ({"python": "missing.py"}, "missing.py"),
        ({"scene": "missing.blend"}, "missing.blend"),
        ({"render_type": "single", "parts": 1000, "output": "a.png"}, "1000 strips are more"),
    ],
)
def test_what_is_not_there_is_a_failure(
    farm: Up, folder: Path, blend: Path, params: dict[str, object], sentence: str
) -> None:
    """Blender would render another scene, or go on, and exit with 0."""
    given = {"scene": blend, "output": folder / "a.png", **params}
    log = failed(farm, submit(farm, "blender", "--frames", "1", "--retries", 0, **given))
    assert sentence.lower() in log.lower()


def test_a_python_error_is_a_failure(farm: Up, folder: Path, blend: Path) -> None:
    script = folder / "bad.py"
    script.write_text("1 / 0\n")
    params = {"scene": blend, "output": folder / "a.png", "python": script}
    assert "ZeroDivisionError" in failed(farm, submit(farm, "blender", "--retries", 0, **params))
    assert pictures(folder) == {}


def test_a_scene_that_writes_a_movie_is_refused_unless_a_format_is_named(
    farm: Up, folder: Path, blend: Path
) -> None:
    movie = change(blend, "render.image_settings.file_format = 'FFMPEG'", name="movie.blend")
    job = submit(farm, "blender", "--frames", "1-2", "--chunk", 2, "--retries", 0, scene=movie)
    assert "this file writes a movie" in failed(farm, job)
    farm.cli.done(submit(farm, "blender", "--frames", "5", scene=movie, output=folder / "a.png"))
    assert list(pictures(folder)) == ["a0005.png"]
