"""PNG: whole files pass, everything else is told apart, pixels come back as they were."""

import os
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue import png
from drqueue.png import PngError, check, decode_rgb, encode_rgb

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
FORMATS = [
    *[(0, depth) for depth in (1, 2, 4, 8, 16)],
    *[(3, depth) for depth in (1, 2, 4, 8)],
    *[(colour, depth) for colour in (2, 4, 6) for depth in (8, 16)],
]
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def ihdr(
    width: int, height: int, depth: int = 8, colour: int = 2, tail: tuple[int, int, int] = (0, 0, 0)
) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, *tail))


def build(*chunks: bytes) -> bytes:
    return png.SIGNATURE + b"".join(chunks) + chunk(b"IEND", b"")


def idat(raw: bytes) -> bytes:
    return chunk(b"IDAT", zlib.compress(raw))


def predict(kind: int, left: int, up: int, corner: int) -> int:
    """The five filters as the specification words them."""
    if kind < 3:
        return (0, left, up)[kind]
    if kind == 3:
        return (left + up) // 2
    p = left + up - corner
    return min((left, up, corner), key=lambda value: abs(p - value))


def filtered(rows: list[bytes], kinds: list[int], step: int) -> bytes:
    raw = bytearray()
    above = bytes(len(rows[0]))
    for row, kind in zip(rows, kinds, strict=True):
        raw.append(kind)
        for i, value in enumerate(row):
            left, corner = (row[i - step], above[i - step]) if i >= step else (0, 0)
            raw.append((value - predict(kind, left, above[i], corner)) % 256)
        above = row
    return bytes(raw)


@given(st.integers(1, 9), st.integers(1, 6), st.data())
def test_every_filter_gives_the_pixels_back(width: int, height: int, data: st.DataObject) -> None:
    colour, depth = data.draw(st.sampled_from([(2, 8), (6, 8), (0, 8), (2, 16)]))
    step = SAMPLES[colour] * depth // 8
    rows = [data.draw(st.binary(min_size=width * step, max_size=width * step)) for _ in range(height)]
    kinds = data.draw(st.lists(st.integers(0, 4), min_size=height, max_size=height))
    picture = build(ihdr(width, height, depth, colour), idat(filtered(rows, kinds, step)))
    plain = build(ihdr(width, height, depth, colour), idat(filtered(rows, [0] * height, step)))
    assert check(picture) is None
    assert decode_rgb(picture) == decode_rgb(plain)
    if (colour, depth) == (2, 8):
        assert decode_rgb(picture) == (width, height, rows)


def test_every_kind_of_pixel_becomes_rgb() -> None:
    def pixels(colour: int, depth: int, row: bytes, width: int, palette: bytes = b"") -> bytes:
        extra = [chunk(b"PLTE", palette)] if palette else []
        (rgb,) = decode_rgb(build(ihdr(width, 1, depth, colour), *extra, idat(b"\0" + row)))[2]
        return rgb

    assert pixels(0, 1, b"\xa0", 3) == b"\xff\xff\xff\0\0\0\xff\xff\xff"
    assert pixels(0, 2, b"\x1b", 4) == bytes([0, 0, 0, 85, 85, 85, 170, 170, 170, 255, 255, 255])
    assert pixels(0, 4, b"\x0f\x80", 3) == bytes([0, 0, 0, 255, 255, 255, 136, 136, 136])
    assert pixels(0, 8, b"\x07", 1) == b"\7\7\7"
    assert pixels(0, 16, b"\x07\xff", 1) == b"\7\7\7"
    assert pixels(2, 16, b"\1\xff\2\xff\3\xff", 1) == b"\1\2\3"
    assert pixels(4, 8, b"\x05\x80\x06\x80", 2) == b"\5\5\5\6\6\6"
    assert pixels(4, 16, b"\x05\0\x80\0", 1) == b"\5\5\5"
    assert pixels(6, 8, b"\1\2\3\x80\4\5\6\0", 2) == b"\1\2\3\4\5\6"
    assert pixels(6, 16, b"\1\0\2\0\3\0\x80\0", 1) == b"\1\2\3"
    palette = b"\1\2\3\4\5\6\7\x08\x09"
    assert pixels(3, 8, b"\2\0", 2, palette) == b"\7\x08\x09\1\2\3"
    assert pixels(3, 2, b"\x90", 2, palette) == b"\7\x08\x09\4\5\6"
    assert pixels(3, 1, b"\x80", 2, palette) == b"\4\5\6\1\2\3"
    assert pixels(3, 8, b"\xff", 1, palette) == b"\0\0\0", "an index past the palette"


@given(st.integers(1, 20), st.integers(1, 20), st.randoms(use_true_random=False))
def test_what_is_encoded_is_whole_and_comes_back(width: int, height: int, random: "st.RandomType") -> None:
    rows = [random.randbytes(3 * width) for _ in range(height)]
    picture = encode_rgb(width, height, rows)
    assert check(picture) is None
    assert decode_rgb(picture) == (width, height, rows)


@pytest.mark.parametrize(
    ("width", "height", "rows"), [(0, 0, []), (1, 1, []), (1, 1, [b"ab"]), (2, 1, [b"abc"])]
)
def test_rows_that_do_not_fit_are_refused(width: int, height: int, rows: list[bytes]) -> None:
    with pytest.raises(ValueError, match="not those of a picture"):
        encode_rgb(width, height, rows)


WHOLE = encode_rgb(5, 4, [bytes(range(n, n + 15)) for n in range(4)])


@given(st.integers(0, len(WHOLE) - 1))
def test_no_beginning_of_a_file_is_whole(size: int) -> None:
    assert check(WHOLE[:size]) is not None
    with pytest.raises(PngError):
        decode_rgb(WHOLE[:size])


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_every_flipped_byte_is_noticed(at: int, flip: int) -> None:
    data = bytearray(WHOLE)
    data[at] ^= flip
    assert check(bytes(data)) is not None
    with pytest.raises(PngError):
        decode_rgb(bytes(data))


@given(st.binary(max_size=200))
def test_noise_after_a_signature_is_a_sentence(noise: bytes) -> None:
    assert check(png.SIGNATURE + noise) is not None


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "does not begin like a PNG"),
        (b"\xff\xd8\xff\xe0 jpeg", "does not begin like a PNG"),
        (WHOLE + b"x", "bytes follow after its end"),
        (WHOLE[:-12], "ends early, without IEND"),
        (build(idat(b"")), "IHDR is not its first chunk"),
        (build(ihdr(1, 1), ihdr(1, 1)), "IHDR is not its first chunk, or not the only one"),
        (build(ihdr(1, 1)), "pixel data ends early"),
        (build(ihdr(1, 2), idat(b"\0abc")), "pixel data ends early"),
        (build(ihdr(1, 1), idat(b"\0abc\0")), "more pixel data than its size"),
        (build(ihdr(1, 1), chunk(b"IDAT", zlib.compress(b"\0abc")[:-1])), "pixel data ends early"),
        (build(ihdr(1, 1), chunk(b"IDAT", b"nonsense")), "does not inflate"),
        (build(ihdr(1, 2), idat(b"\0abc"), chunk(b"tEXt", b""), idat(b"\0abc")), "in two places"),
        (build(ihdr(0, 1), idat(b"")), "impossible"),
        (build(ihdr(1, 1 << 31), idat(b"")), "impossible"),
        (build(ihdr(1, 1, 8, 5), idat(b"")), "format that PNG does not have"),
        (build(ihdr(1, 1, 4, 2), idat(b"")), "format that PNG does not have"),
        (build(ihdr(1, 1, tail=(0, 0, 2)), idat(b"")), "format that PNG does not have"),
        (build(ihdr(1, 1, 8, 3), idat(b"\0\0")), "no palette"),
        (build(ihdr(1, 1), chunk(b"PLTE", bytes(771)), idat(b"\0abc")), "too long"),
        (png.SIGNATURE + ihdr(1, 1) + b"\xff\xff\xff\xffIDAT", "impossible length"),
        (png.SIGNATURE + ihdr(1, 1) + b"\x7f\xff\xff\xffIDATx\x9c", "ends early, in chunk IDAT"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(data: bytes, sentence: str) -> None:
    assert sentence in str(check(data))
    with pytest.raises(PngError, match=sentence):
        decode_rgb(data)


def test_unknown_chunks_and_many_idats_are_fine() -> None:
    packed = zlib.compress(b"\0abc" * 3)
    parts = [chunk(b"IDAT", packed[n : n + 1]) for n in range(len(packed))]
    data = build(
        ihdr(1, 3), chunk(b"tEXt", b"k\0v" * 50_000), chunk(b"IDAT", b""), *parts, chunk(b"tIME", bytes(7))
    )
    assert check(data) is None
    assert decode_rgb(data) == (1, 3, [b"abc"] * 3)


@pytest.mark.parametrize(("colour", "depth"), FORMATS)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 2), (8, 8), (13, 5)])
def test_interlaced_pictures_are_checked_not_decoded(
    width: int, height: int, colour: int, depth: int
) -> None:
    size = 0
    for x, y, step_x, step_y in PASSES:
        columns, rows = len(range(x, width, step_x)), len(range(y, height, step_y))
        size += rows * (1 + (columns * SAMPLES[colour] * depth + 7) // 8) if columns else 0
    head = [
        ihdr(width, height, depth, colour, (0, 0, 1)),
        *([chunk(b"PLTE", bytes(3))] if colour == 3 else []),
    ]
    assert check(build(*head, idat(bytes(size)))) is None
    assert check(build(*head, idat(bytes(size - 1)))) is not None
    assert check(build(*head, idat(bytes(size + 1)))) is not None
    with pytest.raises(PngError, match="interlaced"):
        decode_rgb(build(*head, idat(bytes(size))))


def test_an_unknown_filter_is_refused() -> None:
    with pytest.raises(PngError, match="unknown filter 5"):
        decode_rgb(build(ihdr(1, 1), idat(b"\5abc")))


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """100 MB of zeros inside a 100 kB file, checked in pieces; too large to decode."""
    packer = zlib.compressobj(9)
    packed = b"".join([packer.compress(bytes(10_000_001)) for _ in range(10)]) + packer.flush()
    path = tmp_path / "bomb.png"
    path.write_bytes(build(ihdr(10_000_000, 10, 8, 0), chunk(b"IDAT", packed)))
    tracemalloc.start()
    try:
        assert check(path) is None
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
        with pytest.raises(PngError, match="too large to decode"):
            decode_rgb(path.read_bytes())
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_files_are_checked_by_path(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(WHOLE)
    assert check(tmp_path / "a.png") is None
    assert check(os.fspath(tmp_path / "a.png")) is None
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "b.png")


def test_a_small_frame_decodes_quickly() -> None:
    """160x90 with the slowest filter; about 10 ms of CPU, with room for a slow machine."""
    rows = [os.urandom(480) for _ in range(90)]
    data = build(ihdr(160, 90), idat(filtered(rows, [4] * 90, 3)))
    costs = []
    for _ in range(5):
        before = time.thread_time()
        decoded = decode_rgb(data)
        costs.append(time.thread_time() - before)
    assert decoded == (160, 90, rows)
    assert min(costs) < 0.06, costs


def test_a_pipe_is_no_picture_and_nobody_waits_for_it(tmp_path: Path) -> None:
    """A frame may put one where its picture was a moment ago."""
    pipe = tmp_path / "picture.png"
    os.mkfifo(pipe)
    assert png.check(pipe) == "it is no file"
