"""The contact sheet: scaling, places, numbers, and pictures that cannot be read."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue import png
from drqueue.client.demo import contact

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def plain(path: Path, colour: tuple[int, int, int], width: int = 8, height: int = 4) -> Path:
    path.write_bytes(png.encode_rgb(width, height, [bytes(colour) * width] * height))
    return path


def sheet_of(path: Path) -> tuple[int, int, list[bytes]]:
    width, height, rows = png.decode_rgb(path.read_bytes())
    return width, height, [bytes(row) for row in rows]


def at(rows: list[bytes], x: int, y: int) -> tuple[int, ...]:
    return tuple(rows[y][3 * x : 3 * x + 3])


def test_pictures_stand_in_order_left_to_right_then_down(tmp_path: Path) -> None:
    paths = [plain(tmp_path / f"f{i}.png", colour) for i, colour in enumerate((RED, GREEN, BLUE))]
    contact.contact_sheet(paths, tmp_path / "sheet.png", columns=2)
    width, height, rows = sheet_of(tmp_path / "sheet.png")
    m, label = contact.MARGIN, contact.LABEL_HEIGHT
    assert (width, height) == (2 * 8 + 3 * m, 2 * (4 + label) + 3 * m)
    for (x, y), colour in {
        (m, m): RED,
        (2 * m + 8, m): GREEN,
        (m, 2 * m + 4 + label): BLUE,
        (2 * m + 8, 2 * m + 4 + label): contact.BACKGROUND,
        (0, 0): contact.BACKGROUND,
    }.items():
        assert {at(rows, x + dx, y + dy) for dx in range(8) for dy in range(4)} == {colour} or (x, y) == (
            0,
            0,
        )
        assert at(rows, x, y) == colour
    assert at(rows, m - 1, m) == at(rows, m + 8, m) == at(rows, m, m + 4) == contact.BACKGROUND


def test_fewer_pictures_than_columns_make_a_narrower_sheet(tmp_path: Path) -> None:
    contact.contact_sheet([plain(tmp_path / "a.png", RED)], tmp_path / "sheet.png")
    assert sheet_of(tmp_path / "sheet.png")[0] == 8 + 2 * contact.MARGIN


def test_pictures_of_other_sizes_are_centred_in_their_cell(tmp_path: Path) -> None:
    paths = [plain(tmp_path / "a.png", RED, 20, 10), plain(tmp_path / "b.png", BLUE, 10, 6)]
    contact.contact_sheet(paths, tmp_path / "sheet.png", labels=["", ""])
    _, _, rows = sheet_of(tmp_path / "sheet.png")
    blue = [(x, y) for y, row in enumerate(rows) for x in range(len(row) // 3) if at(rows, x, y) == BLUE]
    left = 2 * contact.MARGIN + 20 + 5
    assert (min(blue), max(blue)) == ((left, contact.MARGIN + 2), (left + 9, contact.MARGIN + 7))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
def test_a_plain_picture_stays_plain_at_any_size(width: int, height: int, limit: int, grey: int) -> None:
    rows = [bytes([grey]) * (3 * width)] * height
    small_width, small_height, small = contact.thumbnail(width, height, rows, limit)
    assert small_width == min(width, limit)
    assert small_height == max(1, round(height * small_width / width))
    assert small == [bytes([grey]) * (3 * small_width)] * small_height


def test_scaling_is_the_mean_of_the_box_for_each_channel() -> None:
    rows = [
        bytes([0, 10, 20, 100, 30, 40, 8, 8, 8, 8, 8, 8]),
        bytes([200, 50, 60, 100, 70, 80, 8, 8, 8, 9, 9, 9]),
    ]
    assert contact.thumbnail(4, 2, rows, 2) == (2, 1, [bytes([100, 40, 50, 8, 8, 8])])


def test_a_small_picture_is_not_blown_up() -> None:
    rows = [bytes(range(9)), bytes(range(9, 18))]
    assert contact.thumbnail(3, 2, rows, 160) == (3, 2, rows)


@pytest.mark.parametrize(
    ("name", "label"),
    [("frame_0007.png", "7"), ("a12b003.png", "3"), ("0000.png", "0"), ("x.png", ""), ("7_final.png", "")],
)
def test_labels_come_from_the_end_of_the_names(name: str, label: str) -> None:
    assert contact.frame_label(Path(name)) == label


def test_digits_are_drawn_as_the_font_says() -> None:
    for text, dots in contact.FONT.items():
        sheet = [bytearray(3 * 10) for _ in range(12)]
        contact.draw_text(sheet, 1, 1, text)
        drawn = ["".join("#" if any(row[3 * x : 3 * x + 3]) else " " for x in range(10)) for row in sheet]
        expected = [" " * 10]
        for line in dots:
            expected += [(" " + "".join(dot * 2 for dot in line)).ljust(10)] * 2
        assert drawn == [*expected, " " * 10]
    assert len(set(contact.FONT.values())) == len(contact.FONT)


def test_characters_stand_side_by_side() -> None:
    apart, together = ([bytearray(3 * 20) for _ in range(12)] for _ in range(2))
    contact.draw_text(together, 1, 1, "47")
    contact.draw_text(apart, 1, 1, "4")
    contact.draw_text(apart, 1 + 4 * contact.INK_SCALE, 1, "7")
    assert together == apart


def test_text_over_the_edge_is_cut_and_unknown_characters_are_gaps() -> None:
    sheet = [bytearray(3 * 9) for _ in range(3)]
    contact.draw_text(sheet, -5, 0, "8?88888")
    assert {len(row) for row in sheet} == {27}


def test_every_picture_has_its_number_below(tmp_path: Path) -> None:
    paths = [plain(tmp_path / "f1.png", RED, 40), plain(tmp_path / "f.png", RED, 40)]
    contact.contact_sheet(paths, tmp_path / "sheet.png")
    _, _, rows = sheet_of(tmp_path / "sheet.png")
    m = contact.MARGIN
    inked = {
        x
        for x in range(3 * m + 80)
        for y in range(m + 4, m + 4 + contact.LABEL_HEIGHT)
        if at(rows, x, y) == contact.INK
    }
    assert inked == set(range(m + 17, m + 23))


def test_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        contact.contact_sheet([], tmp_path / "sheet.png")


@pytest.mark.parametrize("options", [{"columns": 0}, {"thumb_width": 0}, {"labels": ["1", "2"]}])
def test_impossible_wishes_are_refused(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"at least one column|labels"):
        contact.contact_sheet([plain(tmp_path / "a.png", RED)], tmp_path / "s.png", **options)  # type: ignore[arg-type]


def test_a_broken_picture_is_named_and_no_sheet_appears(tmp_path: Path) -> None:
    broken = tmp_path / "f2.png"
    broken.write_bytes(plain(tmp_path / "f1.png", RED).read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"f2\.png: "):
        contact.contact_sheet([tmp_path / "f1.png", broken], tmp_path / "sheet.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f1.png", "f2.png"]


def test_a_sheet_that_cannot_be_saved_leaves_nothing(tmp_path: Path) -> None:
    picture = plain(tmp_path / "f1.png", RED)
    (tmp_path / "sheet.png").mkdir()
    with pytest.raises(IsADirectoryError):
        contact.contact_sheet([picture], tmp_path / "sheet.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f1.png", "sheet.png"]
