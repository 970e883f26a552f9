"""The renderer that ships with DrQueue: a ray tracer in the standard library alone.

    python tracer.py -o out/frame_####.png -f 1-4 [--frames 24] [--size 160x90] [--samples 1]

It draws one loop of an animation: seven balls on a polished checker floor at dusk. It behaves as a renderer
on a farm should: progress on stdout, every picture written beside its final name and renamed, status 0 when
all is saved, 1 for a failure, 2 for arguments that make no sense, and one sentence on stderr that says why.

Rules of this file: it imports nothing but the standard library, not even drqueue, because it is run by its
path with `python -I -S` on nodes that have no more than a Python; and a picture depends on nothing but the
arguments, so that frames rendered on different nodes fit together.
"""

import argparse
import math
import os
import re
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from typing import NoReturn

Colour = tuple[float, float, float]
# Centre x, y, z; radius and its square; colour; how much it mirrors. A tuple, because that unpacks fastest.
Ball = tuple[float, float, float, float, float, Colour, float]

MAX_FRAMES = 1_000_000
MAX_SIDE = 16_384
MAX_SAMPLES = 4_096
MAX_BOUNCES = 2

SUN = (-0.64, 0.56, -0.526)  # towards the sun; a unit vector
SUN_COLOUR = (2.5, 2.0, 1.45)
SUN_SIZE = 0.09  # tangent of half the sun's angle: large, for soft shadows
ZENITH = (0.02, 0.12, 0.50)
HORIZON = (1.45, 0.74, 0.44)
RING = ((0.85, 0.05, 0.06), (0.95, 0.45, 0.02), (0.02, 0.33, 0.52))
FLOOR_LIGHT, FLOOR_DARK = (0.60, 0.56, 0.50), (0.03, 0.05, 0.11)
BOUND_Y, BOUND_RADIUS = 0.9, 2.66  # a sphere over the floor's middle that holds every ball at every moment


def balls_at(t: float) -> list[Ball]:
    """Return the balls at the moment `t` of the loop, 0 to 1; those at 1 look as those at 0."""
    height = 1.25 + 0.12 * math.sin(2 * math.pi * t)
    balls: list[Ball] = [(0.0, height, 0.0, 1.0, 1.0, (0.95, 0.93, 0.90), 0.82)]
    for i in range(6):
        # Every third ball has the same colour, so that half a turn closes the loop.
        angle = math.pi * (i / 3 + t)
        bounce = abs(math.sin(math.pi * (2 * t + i / 3)))
        x, z = 2.15 * math.cos(angle), 2.15 * math.sin(angle)
        balls.append((x, 0.46 + 0.75 * bounce, z, 0.46, 0.46 * 0.46, RING[i % 3], 0.16))
    return balls


def sky(dx: float, dy: float, dz: float) -> Colour:
    """Return the light that comes from the direction given, a unit vector that does not point down."""
    k = 2.2 * math.sqrt(dy) if dy > 0.0 else 0.0
    if k > 1.0:
        k = 1.0
    red = HORIZON[0] + k * (ZENITH[0] - HORIZON[0])
    green = HORIZON[1] + k * (ZENITH[1] - HORIZON[1])
    blue = HORIZON[2] + k * (ZENITH[2] - HORIZON[2])
    glow = SUN[0] * dx + SUN[1] * dy + SUN[2] * dz
    if glow <= 0.0:
        return red, green, blue
    glow *= glow
    glow *= glow
    core = 6.0 * glow**24
    glow *= 0.35
    return red + glow + core, green + 0.6 * glow + 0.8 * core, blue + 0.3 * glow + 0.6 * core


def light_at(
    balls: list[Ball], skip: Ball | None, px: float, py: float, pz: float, nx: float, ny: float, nz: float
) -> tuple[float, float]:
    """Return how much of the sun and of the sky reaches a point with the normal given, 0 to 1 each."""
    sx, sy, sz = SUN
    sun = nx * sx + ny * sy + nz * sz
    if sun < 0.0:
        sun = 0.0
    open_sky = 1.0
    # Most points of the floor lie far from the balls and from their shadows: one test instead of seven.
    y = BOUND_Y - py
    square = px * px + y * y + pz * pz
    if square > 30.0:
        along = y * sy - px * sx - pz * sz
        if along < 0.0 or math.sqrt(max(square - along * along, 0.0)) > BOUND_RADIUS + along * SUN_SIZE:
            return sun, 1.0
    for ball in balls:
        if ball is skip:
            continue
        x, y, z, radius, radius2, _, _ = ball
        x, y, z = x - px, y - py, z - pz
        square = x * x + y * y + z * z
        above = x * nx + y * ny + z * nz
        if above > 0.0 and square < 16.0:
            open_sky -= above * radius2 / (square * math.sqrt(square))
        along = x * sx + y * sy + z * sz
        if sun and along > 0.0:
            # How near the way to the sun's middle passes the ball, measured in widths of the half shadow.
            half = along * SUN_SIZE
            gap = math.sqrt(max(square - along * along, 0.0)) - radius
            if gap < half:
                seen = 0.5 + 0.5 * gap / half
                sun = sun * seen * seen * (3.0 - 2.0 * seen) if seen > 0.0 else 0.0
    return sun, max(0.0, open_sky)


def trace(
    balls: list[Ball], ox: float, oy: float, oz: float, dx: float, dy: float, dz: float, bounce: int = 0
) -> Colour:
    """Return the light that a ray sees: from an origin, along a unit vector."""
    best, hit = 1e9, None
    y = BOUND_Y - oy
    along = y * dy - ox * dx - oz * dz
    inside = BOUND_RADIUS * BOUND_RADIUS - ox * ox - y * y - oz * oz + along * along
    for ball in balls if inside > 0.0 and along > -BOUND_RADIUS else ():
        x, y, z, _, radius2, _, _ = ball
        x, y, z = x - ox, y - oy, z - oz
        along = x * dx + y * dy + z * dz
        if along > 0.0:
            inside = radius2 - x * x - y * y - z * z + along * along
            if inside > 0.0:
                distance = along - math.sqrt(inside)
                if 1e-3 < distance < best:
                    best, hit = distance, ball
    if hit is None:
        if dy > -1e-4:
            return sky(dx, dy, dz)
        best = -oy / dy
    px, py, pz = ox + best * dx, oy + best * dy, oz + best * dz

    if hit is None:
        nx, ny, nz = 0.0, 1.0, 0.0
        # Far away the two colours of the checker melt into one, as they would with endless samples.
        far = 1.0 / (1.0 + best * best * 0.004)
        side = far if (math.floor(px * 0.8) + math.floor(pz * 0.8)) & 1 else -far
        side = 0.5 + 0.5 * side
        red = FLOOR_DARK[0] + side * (FLOOR_LIGHT[0] - FLOOR_DARK[0])
        green = FLOOR_DARK[1] + side * (FLOOR_LIGHT[1] - FLOOR_DARK[1])
        blue = FLOOR_DARK[2] + side * (FLOOR_LIGHT[2] - FLOOR_DARK[2])
        mirror = 0.10
    else:
        nx, ny, nz = (px - hit[0]) / hit[3], (py - hit[1]) / hit[3], (pz - hit[2]) / hit[3]
        (red, green, blue), mirror = hit[5], hit[6]

    if bounce < MAX_BOUNCES:
        sun, open_sky = light_at(balls, hit, px, py, pz, nx, ny, nz)
    else:  # the faint image in a coloured ball or in the floor: nobody sees a shadow missing there
        sun, open_sky = max(0.0, nx * SUN[0] + ny * SUN[1] + nz * SUN[2]), 0.8
    facing = -(dx * nx + dy * ny + dz * nz)
    graze = 1.0 - facing
    mirror += (1.0 - mirror) * 0.75 * graze * graze * graze * graze * graze
    up = 0.30 + 0.20 * ny
    diffuse = 1.0 - mirror
    red *= diffuse * (sun * SUN_COLOUR[0] + open_sky * up * 1.05)
    green *= diffuse * (sun * SUN_COLOUR[1] + open_sky * up * 1.10)
    blue *= diffuse * (sun * SUN_COLOUR[2] + open_sky * up * 1.45)

    if bounce < MAX_BOUNCES and mirror > 0.05:
        rx, ry, rz = dx + 2 * facing * nx, dy + 2 * facing * ny, dz + 2 * facing * nz
        seen = trace(balls, px, py, pz, rx, ry, rz, bounce + 1 if mirror > 0.5 else MAX_BOUNCES)
        red, green, blue = red + mirror * seen[0], green + mirror * seen[1], blue + mirror * seen[2]
    if hit is None:
        haze = 1.0 - math.exp(-best * best * 0.0011)
        red += haze * (HORIZON[0] - red)
        green += haze * (HORIZON[1] - green)
        blue += haze * (HORIZON[2] - blue)
    elif sun:
        # The highlight: the sun's own mirror image, wider than the sun is.
        shine = (
            SUN[0] * (dx + 2 * facing * nx)
            + SUN[1] * (dy + 2 * facing * ny)
            + SUN[2] * (dz + 2 * facing * nz)
        )
        if shine > 0.8:
            shine = 1.8 * shine**60
            red, green, blue = red + shine, green + shine * 0.9, blue + shine * 0.75
    return red, green, blue


def _film() -> bytes:
    """Return the table from light (in 1/512) to a byte: bright light rolls off, then comes sRGB's gamma."""
    table = bytearray()
    for i in range(4096):
        v = i / 512
        v = v * (1.0 + v / 9.0) / (1.0 + v)
        v = 12.92 * v if v < 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055
        table.append(min(255, round(255 * v)))
    return bytes(table)


FILM = _film()


def render(t: float, width: int, height: int, samples: int) -> Iterator[bytes]:
    """Yield the picture at the moment `t` of the loop, row by row from the top, three bytes a pixel."""
    balls = balls_at(t)
    sway = 0.22 * math.sin(2 * math.pi * t)
    ox, oy, oz = 7.6 * math.sin(sway), 2.35 + 0.25 * math.cos(2 * math.pi * t), -7.6 * math.cos(sway)
    # The camera's axes: forwards to a point above the floor's middle, then right, then up.
    fx, fy, fz = -ox, 1.0 - oy, -oz
    size = math.sqrt(fx * fx + fy * fy + fz * fz)
    fx, fy, fz = fx / size, fy / size, fz / size
    size = math.sqrt(fx * fx + fz * fz)
    ax, az = fz / size, -fx / size
    ux, uy, uz = -fy * fx / size, size, -fy * fz / size
    zoom = 0.36
    # Additive recurrence with the plastic number: any count of samples lies evenly over the pixel.
    offsets = [((0.5 + i * 0.7548776662) % 1.0, (0.5 + i * 0.5698402910) % 1.0) for i in range(samples)]
    scale = 512 / samples
    for row in range(height):
        line = bytearray()
        append = line.append
        for column in range(width):
            red = green = blue = 0.0
            for sx, sy in offsets:
                u = ((column + sx) * 2 - width) / height * zoom
                v = (height - (row + sy) * 2) / height * zoom
                dx, dy, dz = fx + u * ax + v * ux, fy + v * uy, fz + u * az + v * uz
                k = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
                r, g, b = trace(balls, ox, oy, oz, dx * k, dy * k, dz * k)
                red, green, blue = red + r, green + g, blue + b
            for light in (red * scale, green * scale, blue * scale):
                append(FILM[int(light)] if light < 4096.0 else 255)
        yield bytes(line)


def png(width: int, height: int, rows: list[bytes]) -> bytes:
    """Return the rows (three bytes a pixel) as a PNG file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows), 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def frame_list(text: str) -> list[int]:
    """Return the frames of a list such as `3`, `1-4` or `1,3,7-9`: in that order, each once."""
    frames: dict[int, None] = {}
    for part in re.split(r"[,\s]+", text.strip()):
        match = re.fullmatch(r"(-?\d{1,9})(?:-(-?\d{1,9}))?", part, re.ASCII)
        if match is None:
            raise argparse.ArgumentTypeError(f"{part!r} is not a frame or a range such as 1-4")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise argparse.ArgumentTypeError(f"{part!r} runs backwards")
        if last - first >= MAX_FRAMES:
            raise argparse.ArgumentTypeError(f"{part!r} is more than {MAX_FRAMES} frames")
        frames.update(dict.fromkeys(range(first, last + 1)))
    return list(frames)


def picture_size(text: str) -> tuple[int, int]:
    """Return width and height from a text such as `160x90`."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text, re.ASCII)
    if match is None or not (0 < int(match[1]) <= MAX_SIDE and 0 < int(match[2]) <= MAX_SIDE):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size from 1x1 to {MAX_SIDE}x{MAX_SIDE}")
    return int(match[1]), int(match[2])


def count(limit: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from 1 to the limit."""

    def parse(text: str) -> int:
        if re.fullmatch(r"\d{1,9}", text, re.ASCII) is None or not 0 < int(text) <= limit:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {limit}")
        return int(text)

    return parse


def seconds(text: str) -> float:
    """Return a span of time, 0 to a day."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 86_400.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 86400")
    return value


def file_name(pattern: str, frame: int) -> str:
    """Return the pattern with the last `#`s of its last part replaced by the frame's number, zero-padded."""
    folder, name = os.path.split(pattern)
    name = re.sub(r"#+(?=[^#]*$)", lambda match: str(frame).zfill(len(match[0])), name)
    return os.path.join(folder, name)


def save(path: str, data: bytes) -> None:
    """Write a whole file under its final name, or nothing under that name; raise OSError."""
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "wb") as file:
            file.write(data)
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise


class Parser(argparse.ArgumentParser):
    """A parser of arguments that says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Print the sentence and exit with 2."""
        self.exit(2, f"tracer: {message}\n")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the options; exit with 2 where they make no sense."""
    parser = Parser(
        prog="tracer", allow_abbrev=False, description="Renders frames of a small animated scene."
    )
    add = parser.add_argument
    add(
        "-o",
        "--output",
        default="frame_####.png",
        metavar="PATTERN",
        help="#### stands for the frame's number",
    )
    add("-f", "--frame", type=frame_list, required=True, metavar="LIST", help="3, 1-4, or 1,3,7-9")
    add(
        "--frames",
        type=count(MAX_FRAMES),
        default=24,
        metavar="N",
        help="frames of the whole loop (%(default)s)",
    )
    add("--size", type=picture_size, default=(160, 90), metavar="WxH", help="the picture's size (160x90)")
    add(
        "--samples", type=count(MAX_SAMPLES), default=1, metavar="N", help="rays for each pixel (%(default)s)"
    )
    add("--sleep", type=seconds, default=0.0, metavar="S", help="seconds to wait before each frame")
    add(
        "--fail", type=frame_list, default=[], metavar="LIST", help="frames to fail at, for trying out a farm"
    )
    add("--hang", type=frame_list, default=[], metavar="LIST", help="frames to hang at")
    options = parser.parse_args(argv)
    name = os.path.basename(options.output)
    if not name:
        parser.error(f"argument -o/--output: {options.output!r} names no file")
    if len(options.frame) > 1 and "#" not in name:
        parser.error("argument -o/--output: several frames need a # in the file's name")
    return options


def main(argv: list[str] | None = None) -> int:
    """Render what the arguments ask for and return the exit status."""
    options = parse_arguments(argv)
    width, height = options.size
    told = -1
    for done, frame in enumerate(options.frame):
        print(f"Frame: {frame}", flush=True)
        time.sleep(options.sleep)
        while frame in options.hang:
            time.sleep(3600)
        if frame in options.fail:
            print(f"tracer: told to fail at frame {frame}.", file=sys.stderr)
            return 1
        path = file_name(options.output, frame)
        # Before the rays, not after them: a wrong folder should cost no minutes.
        if not os.access(os.path.dirname(path) or ".", os.W_OK | os.X_OK):
            print(f"tracer: cannot write {path!r}: its folder is missing or closed to us.", file=sys.stderr)
            return 1
        rows: list[bytes] = []
        for row in render((frame - 1) % options.frames / options.frames, width, height, options.samples):
            rows.append(row)
            percent = 100 * (done * height + len(rows)) // (len(options.frame) * height)
            if percent >= told + 5 or (percent == 100 and told != 100):
                told = percent
                print(f"Progress: {percent}%", flush=True)
        try:
            save(path, png(width, height, rows))
        except OSError as error:
            print(f"tracer: cannot write {path!r}: {error.strerror or error}.", file=sys.stderr)
            return 1
        print(f"Saved: {path!r}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
