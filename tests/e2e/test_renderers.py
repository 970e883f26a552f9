"""`drqueue demo` with every renderer: whole, distinct, non-blank pictures, a contact sheet, a summary."""

import json
import signal
from pathlib import Path

import pytest

from drqueue import png
from tests.e2e.helpers import Cli, Said, processes_with, wait_until

pytestmark = pytest.mark.slow
FRAMES = 6
SIZE = (64, 36)


def cli_in(folder: Path) -> Cli:
    """A command line without any farm running."""
    folder.mkdir(exist_ok=True)
    return Cli(folder / "no-farm", folder)


def assert_animation(folder: Path, size: tuple[int, int] = SIZE, frames: int = FRAMES) -> None:
    """That many whole pictures of that size, each different from all others, none of one colour."""
    pictures = sorted(folder.glob("frame_*.png"))
    assert [picture.name for picture in pictures] == [f"frame_{n:04d}.png" for n in range(1, frames + 1)]
    seen = set()
    for picture in pictures:
        assert png.check(picture) is None
        width, height, rows = png.decode_rgb(picture.read_bytes())
        assert (width, height) == size
        pixels = b"".join(rows)
        assert len({pixels[at : at + 3] for at in range(0, len(pixels), 3)}) > 8, f"{picture.name} is blank"
        seen.add(pixels)
    assert len(seen) == frames
    sheet = folder / "contact-sheet.png"
    assert png.check(sheet) is None
    assert png.decode_rgb(sheet.read_bytes())[0] >= 2 * size[0]


def assert_summary(said: Said, frames: int = FRAMES) -> None:
    """Both slaves rendered, and between them every frame."""
    shares = {share["slave"]: share["frames"] for share in json.loads(said.out)["slaves"]}
    assert set(shares) == {"s1", "s2"}
    assert min(shares.values()) > 0
    assert sum(shares.values()) == frames


def words(renderer: str, frames: int, *more: object) -> tuple[object, ...]:
    """`drqueue demo` at a small size."""
    size = f"{SIZE[0]}x{SIZE[1]}"
    return ("demo", "--renderer", renderer, "--frames", frames, "--size", size, *more)


@pytest.mark.parametrize(
    "renderer",
    [
        pytest.param("povray", marks=pytest.mark.needs("povray")),
        pytest.param("blender", marks=pytest.mark.needs("blender")),
    ],
)
def test_demo_renders_an_animation(tmp_path: Path, renderer: str) -> None:
    """A few frames by a master and two slaves, which all are gone afterwards."""
    cli = cli_in(tmp_path / "work")
    # Blender takes its time to start: eight frames are four attempts, six would be as many.
    frames = 8 if renderer == "blender" else FRAMES
    said = cli.run(*words(renderer, frames, "--output", "out dir", "--json"))
    assert_animation(cli.cwd / "out dir", frames=frames)
    assert_summary(said, frames)
    assert processes_with(cli.cwd) == []


def test_two_demos_live_side_by_side_and_show_a_summary(tmp_path: Path) -> None:
    """The renderer that ships with the project, twice at once; what people read names both slaves."""
    one, two = cli_in(tmp_path / "one"), cli_in(tmp_path / "two")
    with one.start(*words("tracer", FRAMES)) as first, two.start(*words("tracer", FRAMES)) as second:
        said = [first.finish(), second.finish()]
    for cli, answer in zip((one, two), said, strict=True):
        assert answer.status == 0, answer.err
        assert_animation(cli.cwd / "demo-output")
        assert "6, all valid" in answer.out
        assert [line.split()[0] for line in answer.out.splitlines()[-2:]] == ["s1", "s2"]


def test_a_demo_replaces_an_earlier_one_and_nothing_else(tmp_path: Path) -> None:
    """No old frames beside the new ones; somebody's own files in the folder stay."""
    cli = cli_in(tmp_path / "work")
    folder = cli.cwd / "demo-output"
    folder.mkdir()
    for name in ("contact-sheet.png", "frame_0001.png", "frame_0003.png", "frame_notes.txt"):
        (folder / name).write_text("old")
    cli.run("demo", "--frames", 2, "--size", "16x9")
    assert_animation(folder, (16, 9), 2)
    assert (folder / "frame_notes.txt").read_text() == "old"


def test_a_renderer_that_is_not_installed_is_named(tmp_path: Path) -> None:
    """One sentence with advice, and no farm is left."""
    cli = cli_in(tmp_path / "work")
    empty = tmp_path / "empty"
    empty.mkdir()
    bare = Cli(cli.state_dir, cli.cwd, {"PATH": str(empty)})
    sentence = bare.run("demo", "--renderer", "povray", status=1).sentence
    assert "povray was not found in PATH" in sentence
    assert "--renderer tracer" in sentence


def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C in mid-render: status 130, no process, no state; the pictures made so far stay."""
    cli = Cli(tmp_path / "no-farm", tmp_path, {"TMPDIR": str(tmp_path / "tmp")})
    (tmp_path / "tmp").mkdir()
    with cli.start("demo", "--frames", 500, "--size", "64x36") as demo:
        wait_until("some pictures", lambda: len(list(tmp_path.glob("demo-output/*.png"))) > 2)
        assert len(processes_with(tmp_path)) >= 5
        demo.process.send_signal(signal.SIGINT)
        said = demo.finish()
    assert said.status == 130
    assert "Traceback" not in said.err
    assert processes_with(tmp_path) == []
    assert list((tmp_path / "tmp").glob("drqueue-demo-*")) == []
