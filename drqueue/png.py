"""PNG in the standard library: is a file whole, and pictures small enough for a contact sheet.

Rules: what is read is hostile. Sizes are checked before memory is taken, chunks and pixels go through
in pieces. Errors are sentences. Interlaced pictures are checked, not decoded.
"""

import io
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import BinaryIO, NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Pixels of a picture that `decode_rgb` takes at most.
MAX_PIXELS = 50_000_000
_PIECE = 1 << 16
#: Samples per pixel and allowed bits per sample, by colour type.
_COLOURS: dict[int, tuple[int, tuple[int, ...]]] = {
    0: (1, (1, 2, 4, 8, 16)),
    2: (3, (8, 16)),
    3: (1, (1, 2, 4, 8)),
    4: (2, (8, 16)),
    6: (4, (8, 16)),
}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class PngError(ValueError):
    """A PNG is not whole, or of a kind that is not decoded; the text is one sentence."""


class _Header(NamedTuple):
    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool

    @property
    def pixel_bits(self) -> int:
        return _COLOURS[self.colour][0] * self.depth

    def data_size(self) -> int:
        """Bytes that the pixel data inflates to: rows of one filter byte and the packed samples."""
        if not self.interlaced:
            return self.height * _row_size(self.width, self.pixel_bits)
        total = 0
        for x, y, step_x, step_y in _ADAM7:
            columns = -(-(self.width - x) // step_x)
            rows = -(-(self.height - y) // step_y)
            if columns > 0 and rows > 0:
                total += rows * _row_size(columns, self.pixel_bits)
        return total


def check(source: str | os.PathLike[str] | bytes) -> str | None:
    """One sentence on why a PNG (a path, or its bytes) is not whole, None when it is. Raises OSError.

    Memory stays bounded whatever the file says; time grows with the file's size.
    """
    if isinstance(source, bytes):
        return _check(io.BytesIO(source))
    # A pipe in the place of the file would otherwise be waited for, perhaps for ever.
    fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return "it is no file"
    with open(fd, "rb") as file:
        return _check(file)


def _check(file: BinaryIO) -> str | None:
    try:
        inflated = 0
        header: _Header | None = None
        for item in _items(file):
            if isinstance(item, _Header):
                header = item
            elif item[0] == b"IDAT":
                inflated += len(item[1])
        if header is None or inflated < header.data_size():
            return "its pixel data ends early"
    except PngError as error:
        return str(error)
    return None


def encode_rgb(width: int, height: int, rows: Sequence[bytes]) -> bytes:
    """A PNG from `height` rows of `width` 8-bit RGB pixels; raises ValueError where they do not fit."""
    if width < 1 or height < 1 or len(rows) != height or any(len(row) != 3 * width for row in rows):
        raise ValueError(f"the rows are not those of a picture of {width}x{height} pixels")
    packer = zlib.compressobj(6)
    data = b"".join([packer.compress(b"\0" + row) for row in rows]) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def decode_rgb(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int, list[bytes]]:
    """Width, height and rows of 8-bit RGB of a PNG; transparency is dropped, 16 bits are cut to 8.

    Raises PngError: not whole, interlaced, or larger than `max_pixels`.
    """
    header: _Header | None = None
    palette = b""
    pixels = bytearray()
    for item in _items(io.BytesIO(data)):
        if isinstance(item, _Header):
            header = item
            if header.interlaced:
                raise PngError("it is interlaced, which is not decoded here")
            if header.width * header.height > max_pixels:
                raise PngError(
                    f"it has {header.width}x{header.height} pixels, which is too large to decode here"
                )
        elif item[0] == b"PLTE":
            palette = item[1]
        elif item[0] == b"IDAT":
            pixels += item[1]
    if header is None or len(pixels) < header.data_size():
        raise PngError("its pixel data ends early")
    rows = [_to_rgb(header, palette, row) for row in _unfilter(header, pixels)]
    return header.width, header.height, rows


def _items(file: BinaryIO) -> Iterator[_Header | tuple[bytes, bytes]]:
    """The header, the palette, and the inflated pixel data in pieces, having checked all the rest."""
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise PngError("it does not begin like a PNG")
    header: _Header | None = None
    kind, previous, palette, begun = b"", b"", False, False
    inflater = zlib.decompressobj()
    left = 0
    while kind != b"IEND":
        head = file.read(8)
        if len(head) < 8:
            raise PngError("it ends early, without IEND")
        length, previous, kind = int.from_bytes(head[:4], "big"), kind, head[4:]
        if length >= 1 << 31:
            raise PngError(f"chunk {_name(kind)} has an impossible length")
        if (header is None) != (kind == b"IHDR"):
            raise PngError("IHDR is not its first chunk, or not the only one")
        if kind == b"IDAT":
            if begun and previous != b"IDAT":
                raise PngError("its pixel data is in two places")
            begun = True
        if kind in (b"IHDR", b"PLTE"):
            limit = 13 if kind == b"IHDR" else 768
            if length > limit:
                raise PngError(f"chunk {_name(kind)} is too long")
            body = b"".join(_body(file, kind, length))
            if kind == b"IHDR":
                header = _header(body)
                left = header.data_size()
                yield header
            else:
                palette = True
                yield kind, body
            continue
        if kind == b"IDAT" and header is not None and header.colour == 3 and not palette:
            raise PngError("it has no palette")
        for piece in _body(file, kind, length):
            if kind == b"IDAT":
                for part in _inflate(inflater, piece):
                    left -= len(part)
                    if left < 0:
                        raise PngError("it has more pixel data than its size says")
                    yield kind, part
    if not inflater.eof:
        raise PngError("its pixel data ends early")
    if file.read(1):
        raise PngError("bytes follow after its end")


def _body(file: BinaryIO, kind: bytes, length: int) -> Iterator[bytes]:
    """A chunk's body in pieces; its checksum is compared at the end."""
    checksum = zlib.crc32(kind)
    while length:
        piece = file.read(min(length, _PIECE))
        if not piece:
            raise PngError(f"it ends early, in chunk {_name(kind)}")
        checksum = zlib.crc32(piece, checksum)
        length -= len(piece)
        yield piece
    stored = file.read(4)
    if len(stored) < 4:
        raise PngError(f"it ends early, in chunk {_name(kind)}")
    if int.from_bytes(stored, "big") != checksum:
        raise PngError(f"chunk {_name(kind)} is damaged: its checksum differs")


def _inflate(inflater: "zlib._Decompress", data: bytes) -> Iterator[bytes]:
    try:
        while data and not inflater.eof:
            part = inflater.decompress(data, _PIECE)
            data = inflater.unconsumed_tail
            if part:
                yield part
            elif not data:
                return
    except zlib.error as error:
        raise PngError("its pixel data does not inflate") from error


def _header(body: bytes) -> _Header:
    if len(body) != 13:
        raise PngError("its IHDR has the wrong length")
    width, height, depth, colour, compression, filters, interlace = struct.unpack(">IIBBBBB", body)
    if not (0 < width < 1 << 31 and 0 < height < 1 << 31):
        raise PngError(f"its size {width}x{height} is impossible")
    if depth not in _COLOURS.get(colour, (0, ()))[1] or compression or filters or interlace > 1:
        raise PngError("its IHDR names a format that PNG does not have")
    return _Header(width, height, depth, colour, bool(interlace))


def _unfilter(header: _Header, data: bytearray) -> Iterator[bytes]:
    step = max(1, header.pixel_bits // 8)
    size = _row_size(header.width, header.pixel_bits)
    above = bytes(size - 1)
    for start in range(0, header.height * size, size):
        kind = data[start]
        row = bytes(data[start + 1 : start + size])
        if kind == 1:
            row = _sub(row, step)
        elif kind == 2:
            row = _up(row, above)
        elif kind == 3:
            row = _average(row, above, step)
        elif kind == 4:
            row = _paeth(row, above, step)
        elif kind:
            raise PngError(f"a row has the unknown filter {kind}")
        above = row
        yield row


def _sub(row: bytes, step: int) -> bytes:
    result = bytearray(len(row))
    for channel in range(step):
        result[channel::step] = bytes([value & 255 for value in accumulate(row[channel::step])])
    return bytes(result)


def _up(row: bytes, above: bytes) -> bytes:
    # All bytes at once in one long number: the low seven bits are added, the top bits have no carry.
    a, b = int.from_bytes(row, "little"), int.from_bytes(above, "little")
    low = int.from_bytes(b"\x7f" * len(row), "little")
    return (((a & low) + (b & low)) ^ ((a ^ b) & ~low)).to_bytes(len(row), "little")


def _average(row: bytes, above: bytes, step: int) -> bytes:
    result = bytearray(row)
    for i in range(min(step, len(row))):
        result[i] = (row[i] + (above[i] >> 1)) & 255
    for i in range(step, len(row)):
        result[i] = (row[i] + ((result[i - step] + above[i]) >> 1)) & 255
    return bytes(result)


def _paeth(row: bytes, above: bytes, step: int) -> bytes:
    result = bytearray(len(row))
    for channel in range(min(step, len(row))):
        left = corner = 0
        values = []
        for value, up in zip(row[channel::step], above[channel::step], strict=True):
            to_left = up - corner
            to_up = left - corner
            to_corner = abs(to_left + to_up)
            to_left = abs(to_left)
            to_up = abs(to_up)
            if to_left <= to_up and to_left <= to_corner:
                left = (value + left) & 255
            elif to_up <= to_corner:
                left = (value + up) & 255
            else:
                left = (value + corner) & 255
            corner = up
            values.append(left)
        result[channel::step] = bytes(values)
    return bytes(result)


def _to_rgb(header: _Header, palette: bytes, row: bytes) -> bytes:
    if header.depth == 16:
        row = row[::2]
    elif header.depth < 8:
        row = _spread(row, header)
    if header.colour == 2:
        return row
    result = bytearray(3 * header.width)
    if header.colour == 3:
        for channel in range(3):
            result[channel::3] = row.translate(palette[channel::3].ljust(256, b"\0"))
    else:
        samples = _COLOURS[header.colour][0]
        for channel in range(3):
            result[channel::3] = row[channel if samples == 4 else 0 :: samples]
    return bytes(result)


def _spread(row: bytes, header: _Header) -> bytes:
    """One byte for each sample of less than 8 bits; grey is scaled to 0-255, an index stays."""
    depth = header.depth
    most = (1 << depth) - 1
    scale = 255 // most if header.colour == 0 else 1
    shifts = range(8 - depth, -1, -depth)
    return bytes([(byte >> shift & most) * scale for byte in row for shift in shifts][: header.width])


def _row_size(columns: int, pixel_bits: int) -> int:
    return 1 + (columns * pixel_bits + 7) // 8


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _name(kind: bytes) -> str:
    return kind.decode("ascii") if kind.isalpha() and kind.isascii() else repr(kind)
