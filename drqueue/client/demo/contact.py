"""The contact sheet: many pictures made small, side by side on one, each with its number below.

Rules of this file: pictures are read and written by `drqueue.png` alone; rows are RGB, three bytes a pixel;
only one picture is held in memory at a time beside the sheet.
"""

import re
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

from drqueue import png

BACKGROUND = (24, 25, 28)
INK = (176, 180, 188)
MARGIN = 10  # pixels round every thumbnail
INK_SCALE = 2  # pixels of the sheet for one dot of the font
LABEL_HEIGHT = 5 * INK_SCALE + 6

# Five rows of three dots each; what is not in here is drawn as a gap.
FONT = {
    "0": ("###", "# #", "# #", "# #", "###"),
    "1": (" # ", "## ", " # ", " # ", "###"),
    "2": ("###", "  #", "###", "#  ", "###"),
    "3": ("###", "  #", "###", "  #", "###"),
    "4": ("# #", "# #", "###", "  #", "  #"),
    "5": ("###", "#  ", "###", "  #", "###"),
    "6": ("###", "#  ", "###", "# #", "###"),
    "7": ("###", "  #", " # ", " # ", " # "),
    "8": ("###", "# #", "###", "# #", "###"),
    "9": ("###", "# #", "###", "  #", "###"),
    "-": ("   ", "   ", "###", "   ", "   "),
}


def thumbnail(width: int, height: int, rows: Sequence[bytes], limit: int) -> tuple[int, int, list[bytes]]:
    """Return width, height and rows of the picture, box-filtered down to at most `limit` pixels of width.

    Smaller pictures stay as they are.
    """
    small_width = min(width, limit)
    small_height = max(1, round(height * small_width / width))
    edges = [x * width // small_width for x in range(small_width + 1)]
    small: list[bytes] = []
    for y in range(small_height):
        top, bottom = y * height // small_height, (y + 1) * height // small_height
        box = rows[top : max(bottom, top + 1)]
        columns = list(map(sum, zip(*box, strict=True)))
        line = bytearray(3 * small_width)
        for channel in range(3):
            # Running sums make every box one subtraction, however wide it is.
            sums = [0, *accumulate(columns[channel::3])]
            line[channel::3] = bytes(
                (sums[right] - sums[left]) // ((right - left) * len(box)) for left, right in pairwise(edges)
            )
        small.append(bytes(line))
    return small_width, small_height, small


def frame_label(path: Path) -> str:
    """Return the number that the file's name ends with, without leading zeros, or an empty text."""
    match = re.search(r"(\d+)$", path.stem, re.ASCII)
    return str(int(match[1])) if match else ""


def draw_text(sheet: list[bytearray], x: int, y: int, text: str) -> None:
    """Draw digits on the sheet; (x, y) is the upper left corner; what lies outside is left out."""
    dot = bytes(INK) * INK_SCALE
    for character in text:
        for row, dots in enumerate(FONT.get(character, ())):
            for column, ink in enumerate(dots):
                left = 3 * (x + column * INK_SCALE)
                if ink != " " and left >= 0:
                    for line in sheet[y + row * INK_SCALE : y + (row + 1) * INK_SCALE]:
                        if left + len(dot) <= len(line):
                            line[left : left + len(dot)] = dot
        x += 4 * INK_SCALE


def contact_sheet(
    paths: Sequence[Path],
    out: Path,
    columns: int = 6,
    thumb_width: int = 160,
    labels: Sequence[str] | None = None,
) -> None:
    """Write one PNG that shows all the PNGs in their order, `columns` in a row, at most `thumb_width` wide.

    `labels` are digits to be drawn below them; without any, the numbers that the file names end with. Raises
    ValueError for no picture or one that cannot be decoded (the message names it), OSError for files that
    cannot be read or written. The sheet appears whole under its name or not at all.
    """
    if not paths:
        raise ValueError("a contact sheet needs at least one picture")
    if columns < 1 or thumb_width < 1:
        raise ValueError("a contact sheet needs at least one column and one pixel")
    texts = [frame_label(path) for path in paths] if labels is None else list(labels)
    if len(texts) != len(paths):
        raise ValueError(f"{len(paths)} pictures cannot have {len(texts)} labels")

    thumbs = []
    for path in paths:
        try:
            width, height, rows = png.decode_rgb(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        thumbs.append(thumbnail(width, height, rows, thumb_width))

    columns = min(columns, len(thumbs))
    cell_width = max(width for width, _, _ in thumbs)
    cell_height = max(height for _, height, _ in thumbs)
    lines = -(-len(thumbs) // columns)
    sheet_width = columns * cell_width + (columns + 1) * MARGIN
    sheet_height = lines * (cell_height + LABEL_HEIGHT) + (lines + 1) * MARGIN
    sheet = [bytearray(bytes(BACKGROUND) * sheet_width) for _ in range(sheet_height)]
    for position, ((width, height, rows), text) in enumerate(zip(thumbs, texts, strict=True)):
        left = MARGIN + position % columns * (cell_width + MARGIN)
        top = MARGIN + position // columns * (cell_height + LABEL_HEIGHT + MARGIN)
        x, y = left + (cell_width - width) // 2, top + (cell_height - height) // 2
        for line, row in zip(sheet[y : y + height], rows, strict=True):
            line[3 * x : 3 * (x + width)] = row
        text_width = (4 * len(text) - 1) * INK_SCALE
        draw_text(sheet, left + (cell_width - text_width) // 2, top + cell_height + 6, text)

    data = png.encode_rgb(sheet_width, sheet_height, [bytes(line) for line in sheet])
    part = out.with_name(f".{out.name}.part")
    try:
        part.write_bytes(data)
        part.replace(out)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
