"""What `drqueue demo` renders: for each renderer one job, ready to be submitted.

Rules of this file: every job runs in the folder it was prepared for and names its files relative to that,
for POV-Ray may (as Debian sets it up) write only to the folder it works in and below /tmp, and no renderer
then cares about odd characters in the folder's name. Nothing here talks to a farm.
"""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from drqueue.proto.placeholders import escaped

RENDERERS = ("tracer", "povray", "blender")

_HERE = Path(__file__).resolve().parent
_DATA = _HERE / "data"
_OUTPUT = "frame_{frame:04d}.png"
_MAKE_BLEND_S = 180  # seconds; it takes about two


class SceneError(Exception):
    """A scene that cannot be rendered on this machine; the message is one sentence for the user."""


@dataclass(frozen=True)
class DemoScene:
    """One job: what to run where. The words of `argv` and `output` hold placeholders such as {frame:04d}.

    `frames` is a frame range, `chunk` the frames of one attempt, `cores` what each attempt may use. Relative
    names, `output` among them, are of `cwd`.
    """

    name: str
    argv: tuple[str, ...]
    output: str
    frames: str
    chunk: int
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cores: int = 1

    def pictures(self) -> list[Path]:
        """Return the files that the whole job is to make, in the order of their frames."""
        first, last = (int(number) for number in self.frames.split("-"))
        return [self.cwd / self.output.format(frame=frame) for frame in range(first, last + 1)]


def prepare(renderer: str, size: tuple[int, int], frames: int, workdir: Path) -> DemoScene:
    """Lay the renderer's scene out in `workdir` (made where missing) and return the job that renders it.

    `size` is width and height in pixels, `frames` how many make the loop. Blocks, for Blender a few seconds.
    Raises SceneError for an unknown renderer, one that is not installed, and a scene that cannot be made.
    """
    if renderer not in RENDERERS:
        raise SceneError(f"there is no renderer {renderer!r}; choose one of {', '.join(RENDERERS)}")
    if frames < 1 or min(size) < 1:
        raise SceneError("a demo needs at least one frame and one pixel")
    workdir = workdir.absolute()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if renderer == "tracer":
            return _tracer(size, frames, workdir)
        if renderer == "povray":
            return _povray(size, frames, workdir)
        return _blender(size, frames, workdir)
    except OSError as error:
        raise SceneError(f"cannot prepare the scene in {workdir}: {error.strerror or error}") from error


def _tracer(size: tuple[int, int], frames: int, workdir: Path) -> DemoScene:
    argv = (
        *(escaped(sys.executable), "-I", "-S", escaped(str(_HERE / "tracer.py"))),
        *("-o", "frame_####.png", "-f", "{start}-{end}", "--frames", str(frames)),
        *("--size", f"{size[0]}x{size[1]}", "--samples", "2"),
    )
    return DemoScene("demo: seven balls", argv, _OUTPUT, f"1-{frames}", 1, workdir)


def _povray(size: tuple[int, int], frames: int, workdir: Path) -> DemoScene:
    program = _program("povray")
    shutil.copyfile(_DATA / "orbit.pov", workdir / "orbit.pov")
    argv = (
        *(escaped(program), "+Iorbit.pov", f"+O{_OUTPUT}", f"+W{size[0]}", f"+H{size[1]}"),
        *("+FN", "+A0.3", "-D", "+WT1", "Declare=Frame={frame}", f"Declare=Frames={frames}"),
    )
    return DemoScene("demo: the wreath", argv, _OUTPUT, f"1-{frames}", 1, workdir)


def _blender(size: tuple[int, int], frames: int, workdir: Path) -> DemoScene:
    program = _program("blender")
    common = ("-b", "--factory-startup", "--python-exit-code", "3")
    # A scene that an earlier demo left must not stand in for one that could not be made.
    (workdir / "wave.blend").unlink(missing_ok=True)
    make = (*common, "--python", str(_DATA / "make_blend.py"))
    wanted = ("--", "wave.blend", f"{size[0]}x{size[1]}", str(frames))
    try:
        made = subprocess.run(
            [program, *make, *wanted],
            cwd=workdir,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_MAKE_BLEND_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SceneError(f"blender did not make the scene within {_MAKE_BLEND_S} s") from error
    if made.returncode != 0 or not (workdir / "wave.blend").is_file():
        lines = [line.strip() for line in made.stdout.decode("utf-8", "replace").splitlines() if line.strip()]
        says = next(
            (line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "no output"
        )
        raise SceneError(f"blender could not make the scene (exit status {made.returncode}): {says}")
    # Blender obeys its options in order: the file before what changes it, the order to render last.
    argv = (
        *(escaped(program), *common, "wave.blend", "-t", "1", "-o", "frame_####", "-F", "PNG", "-x", "1"),
        *("-s", "{start}", "-e", "{end}", "-a"),
    )
    # Blender needs a second to start: several frames an attempt, but enough attempts for every slave.
    chunk = max(1, min(4, frames // 4))
    return DemoScene("demo: the wave", argv, _OUTPUT, f"1-{frames}", chunk, workdir)


def _program(name: str) -> str:
    """Return the path of a program; raise SceneError with advice where there is none."""
    path = shutil.which(name)
    if path is None:
        raise SceneError(
            f"{name} was not found in PATH; "
            f"install it (Debian: apt install {name}) or choose --renderer tracer"
        )
    return path
