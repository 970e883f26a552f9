"""Kinds with their real renderers, on a real farm: whole pictures under the names that were asked for."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drqueue import png
from drqueue.client.demo import scenes
from drqueue.client.demo.scenes import prepare
from tests.e2e.helpers import Up, farm_up

pytestmark = pytest.mark.slow
#: A folder's name that no part of a command may stumble over.
ODD = "it's {frame} $HOME 50%"
ORBIT = Path(scenes.__file__).parent / "data" / "orbit.pov"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A farm of two slaves for all tests of this file."""
    with farm_up(tmp_path_factory.mktemp("kinds")) as up:
        yield up


@pytest.fixture
def folder(farm: Up, request: pytest.FixtureRequest) -> Path:
    """A folder of the test's own, as its commands name it: below where they are typed."""
    made = farm.cli.cwd / request.node.name.replace("[", "_").replace("]", "") / ODD
    made.mkdir(parents=True)
    return made


def pictures(folder: Path, pattern: str = "*.png") -> dict[str, tuple[int, int, bytes]]:
    """Width, height and pixels of all pictures in a folder, each of which must be whole and not blank."""
    found = {}
    for path in sorted(folder.glob(pattern)):
        assert png.check(path) is None
        width, height, rows = png.decode_rgb(path.read_bytes())
        pixels = b"".join(rows)
        assert len({pixels[at : at + 3] for at in range(0, len(pixels), 3)}) > 8, f"{path.name} is blank"
        found[path.name] = (width, height, pixels)
    return found


def submit(farm: Up, kind: str, *options: object, **params: object) -> int:
    """`drqueue submit` of a kind."""
    words = [word for name, value in params.items() for word in ("--set", f"{name}={value}")]
    return farm.cli.submit("--kind", kind, *options, *words)


def failed(farm: Up, job: int) -> str:
    """The log of the first frame of a job, all of whose frames must have failed."""
    counts = farm.cli.wait(job).counts
    assert counts.failed == counts.total
    (number, *_) = farm.cli.frames(job)
    return farm.cli.log(job, number)


# -- the bundled tracer -----------------------------------------------------------------------------------


def test_tracer(farm: Up, folder: Path) -> None:
    """A step, a rest, and a chunk that counts down; what it was made of is kept with the job."""
    job = submit(
        farm, "tracer", "--frames", "9-1x2", "--chunk", 2, output=folder / "a_##.png", width=32, height=18
    )
    farm.cli.done(job)
    made = pictures(folder)
    assert list(made) == [f"a_{number:02d}.png" for number in (1, 3, 5, 7, 9)]
    assert {(width, height) for width, height, _ in made.values()} == {(32, 18)}
    assert len({pixels for _, _, pixels in made.values()}) == 5
    with farm.cli.client() as client:
        spec = client.spec(job)
    assert (spec.kind, spec.params) == (
        "tracer",
        {"output": f"{folder}/a_##.png", "width": "32", "height": "18"},
    )
    assert spec.name == "a"


# -- POV-Ray ----------------------------------------------------------------------------------------------


@pytest.mark.needs("povray")
def test_povray_renders_chunks_as_it_renders_the_whole(farm: Up, folder: Path) -> None:
    """The clock is that of the range; names are those that were asked for; nothing else is left."""
    (folder / "s c.pov").write_text(
        "#version 3.7; global_settings { assumed_gamma 1 } light_source { -9, 1 } "
        "sphere { <3*clock-1.5,0,4>, 1 pigment { gradient x } finish { ambient 0.5 } }"
    )
    size = {"width": 32, "height": 18}
    for options, name in (
        (("--frames", "1-12", "--chunk", 12), "whole_####.png"),
        (("--frames", "1-12", "--chunk", 5), "chunk_####.png"),
        (("--frames", "12-1x3", "--chunk", 2), "step_###.png"),
        (("--frames", "7"), "one_#.png"),
    ):
        more = {"first": 1, "last": 12} if name.startswith("one") else {}
        farm.cli.done(
            submit(farm, "povray", *options, scene=folder / "s c.pov", output=folder / name, **size, **more)
        )
    whole = pictures(folder, "whole_*")
    assert list(whole) == [f"whole_{n:04d}.png" for n in range(1, 13)]
    assert len({pixels for _, _, pixels in whole.values()}) == 12
    assert list(pictures(folder, "chunk_*").values()) == list(whole.values())
    step = pictures(folder, "step_*")
    assert step == {f"step_{n:03d}.png": whole[f"whole_{n:04d}.png"] for n in (3, 6, 9, 12)}
    assert pictures(folder, "one_*") == {"one_7.png": whole["whole_0007.png"]}
    assert len(list(folder.iterdir())) == 1 + 12 + 12 + 4 + 1


@pytest.mark.needs("povray")
def test_the_scene_of_the_demo_moves_with_the_clock_and_with_declared_frames(farm: Up, folder: Path) -> None:
    """The picture of a frame is the same however the scene is told which one it is."""
    shutil.copy(ORBIT, folder)
    params = {"scene": folder / "orbit.pov", "width": 48, "height": 27}
    farm.cli.done(
        submit(farm, "povray", "--frames", "1-4", "--chunk", 2, output=folder / "clock_#.png", **params)
    )
    declared = {"output": folder / "told.png", "declare": "Frame=3 Frames=4"}
    farm.cli.done(submit(farm, "povray", **declared, **params))
    made = {name: pixels for name, (_, _, pixels) in pictures(folder).items()}
    assert list(made) == ["clock_1.png", "clock_2.png", "clock_3.png", "clock_4.png", "told.png"]
    assert len(set(made.values())) == 4
    assert made["told.png"] == made["clock_3.png"]


@pytest.mark.needs("povray")
def test_povray_reads_ini_files_and_includes(farm: Up, folder: Path) -> None:
    (folder / "inc").mkdir()
    (folder / "inc" / "ball.inc").write_text(
        "sphere { <0,0,4>, 1 pigment { gradient x } finish { ambient 1 } }"
    )
    (folder / "s.pov").write_text('#version 3.7; global_settings { assumed_gamma 1 } #include "ball.inc"')
    (folder / "a b.ini").write_text("Width=20\nHeight=10\n")
    params = {
        "scene": folder / "s.pov",
        "ini": folder / "a b.ini",
        "include": folder / "inc",
        "antialias": 0.1,
    }
    farm.cli.done(submit(farm, "povray", "--frames", "3-4", output=folder / "i.png", **params))
    assert {name: size[:2] for name, size in pictures(folder).items()} == {
        "i3.png": (20, 10),
        "i4.png": (20, 10),
    }


@pytest.mark.needs("povray")
def test_povray_that_fails_is_a_failure(farm: Up, folder: Path) -> None:
    (folder / "bad.pov").write_text('#error "no good"')
    job = submit(farm, "povray", "--frames", "1-3", "--chunk", 3, "--retries", 0, scene=folder / "bad.pov")
    assert "no good" in failed(farm, job)


# -- ffmpeg -----------------------------------------------------------------------------------------------


def probed(movie: Path) -> dict[str, object]:
    """What ffprobe says of the stream of pictures: codec, size, how many."""
    fields = "stream=codec_name,width,height,nb_read_frames,avg_frame_rate"
    what = ("-count_frames", "-select_streams", "v", "-show_entries", fields)
    (stream,) = ffprobe(movie, *what)["streams"]
    assert isinstance(stream, dict)
    return stream


def ffprobe(movie: Path, *what: str) -> dict[str, Any]:
    """What ffprobe says."""
    words = ["ffprobe", "-v", "error", *what, "-of", "json", str(movie)]
    said = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    assert isinstance(said, dict)
    return said


@pytest.mark.needs("ffmpeg", "ffprobe")
def test_ffmpeg_encodes_what_a_layer_before_it_rendered(farm: Up, folder: Path) -> None:
    """A job file with two kinds; pictures of odd size get even sides."""
    # Braces in the name of a working directory are placeholders to a job file.
    folder = folder.parent / "it's $HOME 50%"
    folder.mkdir()
    file = folder / "job.toml"
    file.write_text(
        """
        [job]
        name = "clip"

        [[layer]]
        name = "render"
        kind = "tracer"
        frames = "1-6"
        chunk = 2
        params = { output = "a:b %d_####.png", width = 33, height = 19 }
        cwd = "."

        [[layer]]
        name = "encode"
        kind = "ffmpeg"
        params = { input = "a:b %d_####.png", output = "c:d.mp4", last = 6, fps = 12.5, crf = 20 }
        cwd = "."
        after = ["render"]
        """
    )
    job = farm.cli.submit("--file", str(file))
    farm.cli.done(job)
    seen = probed(folder / "c:d.mp4")
    assert (seen["codec_name"], seen["width"], seen["height"]) == ("h264", 34, 20)
    assert (seen["nb_read_frames"], seen["avg_frame_rate"]) == ("6", "25/2")
    with farm.cli.client() as client:
        assert client.spec(job).kind == "tracer"


@pytest.mark.needs("ffmpeg", "ffprobe")
@pytest.mark.parametrize("codec", ["h265", "vp9", "av1", "prores", "ffv1"])
def test_ffmpeg_has_every_codec(farm: Up, folder: Path, codec: str) -> None:
    scene = prepare("tracer", (160, 90), 4, folder)
    words = [word.replace("{start}-{end}", "5-8") for word in scene.argv]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    name = {"vp9": "a.webm", "prores": "a.mov", "ffv1": "a.mkv"}.get(codec, "a.mp4")
    params = {"input": folder / "frame_####.png", "output": folder / name, "first": 5, "codec": codec}
    farm.cli.done(submit(farm, "ffmpeg", "--cores", 1, **params, width=128))
    seen = probed(folder / name)
    assert seen["codec_name"] == {"h265": "hevc"}.get(codec, codec)
    assert (seen["width"], seen["nb_read_frames"]) == (128, "4")


@pytest.mark.needs("ffmpeg")
def test_ffmpeg_makes_no_movie_with_a_gap(farm: Up, folder: Path) -> None:
    """It would, with exit status 0, and without the rest."""
    scene = prepare("tracer", (16, 10), 4, folder)
    for number in (1, 2, 4):
        words = [word.replace("{start}-{end}", str(number)) for word in scene.argv]
        subprocess.run(words, cwd=folder, check=True, capture_output=True)
    params = {"input": folder / "frame_####.png", "output": folder / "a.mp4", "last": 4}
    job = submit(farm, "ffmpeg", "--retries", 0, **params)
    assert "frame_0003.png is missing or empty" in failed(farm, job)
    assert not (folder / "a.mp4").exists()


@pytest.mark.needs("ffmpeg", "ffprobe")
def test_ffmpeg_puts_sound_beside_the_pictures(farm: Up, folder: Path) -> None:
    scene = prepare("tracer", (16, 10), 4, folder)
    words = [word.replace("{start}-{end}", "1-4") for word in scene.argv]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    tone = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=duration=5", str(folder / "to:ne.wav")]
    subprocess.run(tone, check=True, stdin=subprocess.DEVNULL)
    params = {"input": folder / "frame_####.png", "output": folder / "a.mp4", "audio": folder / "to:ne.wav"}
    farm.cli.done(submit(farm, "ffmpeg", **params, fps=4))
    seen = ffprobe(folder / "a.mp4", "-show_entries", "stream=codec_type:format=duration")
    assert {stream["codec_type"] for stream in seen["streams"]} == {"video", "audio"}
    assert float(seen["format"]["duration"]) < 1.5
