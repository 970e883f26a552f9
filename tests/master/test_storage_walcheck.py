"""The write-ahead log: what is wrong before its last transaction is found; what a kill leaves is not wrong.

A real log of small pages is damaged in every way; then it is either refused, or the same rows load as before.
What is wrong in the last transaction alone cannot be told from a power cut in the middle of it: it is left
out, and told.
"""

import random
import shutil
import sqlite3
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Final

import pytest

from drqueue.master.storage.walcheck import Found, Verdict, check_files, check_log

PAGE: Final = 512
FRAME: Final = 24 + PAGE
ROWS: Final = 6
KINDS: Final = ("fresh", "reused", "copied", "one")


class Killed:
    """The files of a database as they are found after a kill: rows 0 to `rows` - 1 are acknowledged.

    `begins`: where each transaction of the log begins, and where the last one ends. A "reused" log has older
    frames behind the new ones, a "copied" one is in the database already, "one" has a single transaction.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.path = folder / "it.db"
        self.begins = [32]
        first = folder / "first.db"
        with closing(sqlite3.connect(first, isolation_level=None)) as writer:
            for pragma in (f"page_size={PAGE}", "journal_mode=WAL", "wal_autocheckpoint=0"):
                writer.execute(f"PRAGMA {pragma}")
            writer.execute("PRAGMA synchronous=OFF")
            writer.execute("CREATE TABLE row (n INTEGER PRIMARY KEY, text TEXT)")
            self.rows = 0
            if kind in ("reused", "one"):
                for _ in range(12):
                    self._write(writer)
                writer.execute("PRAGMA wal_checkpoint(FULL)")
            for _ in range(1 if kind == "one" else ROWS):
                self._write(writer)
                self.begins.append(32 + FRAME * frames_of(folder / "first.db-wal"))
            if kind == "copied":
                writer.execute("PRAGMA wal_checkpoint(FULL)")
            self.database = first.read_bytes()
            self.log = (folder / "first.db-wal").read_bytes()
        self.last = self.begins[-2:]

    def _write(self, writer: sqlite3.Connection) -> None:
        writer.execute("INSERT INTO row VALUES (?, ?)", (self.rows, f"{self.rows} " * 300))
        self.rows += 1

    def check(self, log: bytes, database: bytes | None = None) -> Found:
        """What is said of these bytes."""
        self.checked = (log, self.database if database is None else database)
        return check_log(BytesIO(log), BytesIO(self.checked[1]))

    def write(self) -> None:
        """The files with what was checked last."""
        for name in self.folder.glob("it.db*"):
            name.unlink()
        self.path.write_bytes(self.checked[1])
        self.path.with_name("it.db-wal").write_bytes(self.checked[0])

    def load(self) -> int:
        """How many rows SQLite finds in the files of what was checked last."""
        self.write()
        with closing(sqlite3.connect(self.path)) as reader:
            reader.execute("PRAGMA synchronous=OFF")
            found = reader.execute("SELECT n, text FROM row ORDER BY n").fetchall()
            assert reader.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert found == [(n, f"{n} " * 300) for n in range(len(found))]
        return len(found)

    def judge(self, log: bytes, where: object) -> Verdict:
        """Check that nothing vanishes without a word, but what follows `log`'s own end."""
        found = self.check(log)
        if found.verdict is Verdict.DAMAGED:
            return found.verdict
        rows = self.load()
        if found.verdict is Verdict.TORN:
            assert self.last[0] <= found.at < self.last[1], where
            assert rows == self.rows - 1, where
        else:
            assert rows == self.rows, where
        return found.verdict


def frames_of(log: Path) -> int:
    """How many frames in a row bear the salts of the log's header."""
    data = log.read_bytes()
    count = 0
    while data[32 + count * FRAME + 8 :][:8] == data[16:24]:
        count += 1
    return count


@pytest.fixture(params=KINDS)
def killed(request: pytest.FixtureRequest, tmp_path: Path) -> Killed:
    return Killed(tmp_path, request.param)


@pytest.fixture
def fresh(tmp_path: Path) -> Killed:
    return Killed(tmp_path, "fresh")


def flipped(log: bytes, bit: int) -> bytes:
    data = bytearray(log)
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


def bits_to_flip(killed: Killed) -> Iterator[int]:
    """Of the log's header, of the headers of its last frames, and anywhere."""
    yield from range(0, 32 * 8, 3)
    begin, end = killed.begins[max(len(killed.begins) - 3, 0)], killed.last[1]
    for at in range(max(begin - FRAME, 32), min(end + FRAME, len(killed.log)), FRAME):
        yield from range(at * 8, (at + 24) * 8, 5)
    dice = random.Random(7)
    yield from (dice.randrange(len(killed.log) * 8) for _ in range(100))


def test_a_good_log_is_whole(killed: Killed) -> None:
    assert len(killed.log) > killed.last[1] or killed.last[1] == len(killed.log)
    assert killed.judge(killed.log, "") is Verdict.WHOLE


def test_a_flipped_bit_loses_nothing_without_a_word(killed: Killed) -> None:
    """And each one before the last transaction of a log that the database has not copied is refused."""
    for bit in bits_to_flip(killed):
        log = flipped(killed.log, bit)
        if killed.check(log).verdict is Verdict.TORN and "copied" in str(killed.folder):
            # The one transaction whose pages the database has already.
            assert killed.last[0] <= bit // 8 < killed.last[1]
            continue
        killed.judge(log, bit)


def test_every_bit_before_the_last_transaction_counts(fresh: Killed) -> None:
    """Of the frames' headers every one, of their pages some."""
    dice = random.Random(3)
    for at in range(32, fresh.last[0], FRAME):
        bits = [
            *range(at * 8, (at + 24) * 8),
            *(dice.randrange((at + 24) * 8, (at + FRAME) * 8) for _ in "abcd"),
        ]
        for bit in bits:
            found = fresh.check(flipped(fresh.log, bit))
            assert found == Found(Verdict.DAMAGED, at), bit
    for bit in range(32 * 8):
        assert fresh.check(flipped(fresh.log, bit)) == Found(Verdict.DAMAGED, 0), bit


def test_a_torn_last_transaction_is_not_refused(killed: Killed) -> None:
    """Any pieces of it may be missing: zeros, what was there before, or nothing sensible."""
    begin, end = killed.last
    dice = random.Random(5)
    for turn in range(150):
        log = bytearray(killed.log)
        piece = dice.choice((1, 8, 64, PAGE, FRAME))
        for at in range(begin, end, piece):
            stop = min(at + piece, end)
            match dice.randrange(6):
                case 0:
                    log[at:stop] = bytes(stop - at)
                case 1:
                    log[at:stop] = dice.randbytes(stop - at)
                case 2:
                    # As of an older log that was overwritten.
                    log[at:stop] = killed.log[32 : 32 + stop - at]
                case _:
                    pass
        found = killed.check(bytes(log))
        assert found.verdict is not Verdict.DAMAGED, turn
        if "copied" not in str(killed.folder):
            assert killed.load() in (killed.rows - 1, killed.rows), turn


def test_a_log_that_is_cut_is_never_taken_for_damage(killed: Killed) -> None:
    """SQLite cuts logs itself, and a kill leaves any part of the last write."""
    dice = random.Random(6)
    size = len(killed.log)
    edges = {edge + off for edge in range(32, size + 1, FRAME) for off in (-1, 0, 1, 23, 24, 25)}
    for cut in sorted({0, 1, 31, *edges, *(dice.randrange(size) for _ in range(50))}):
        found = killed.check(killed.log[:cut])
        assert found.verdict is not Verdict.DAMAGED, cut
        if cut >= killed.last[1]:
            assert found.verdict is Verdict.WHOLE
            assert killed.load() == killed.rows, cut
        if cut < 32 + FRAME:
            assert found.verdict is Verdict.NOTHING, cut


def test_what_is_no_log_is_none(fresh: Killed) -> None:
    assert fresh.check(bytes(len(fresh.log))).verdict is Verdict.NOTHING
    assert fresh.check(bytes(32) + fresh.log[32:]).verdict is Verdict.DAMAGED
    assert fresh.check(b"").verdict is Verdict.NOTHING
    # A database without a byte has nothing to compare with, nor to lose.
    assert fresh.check(bytes(32) + fresh.log[32:], b"").verdict is Verdict.NOTHING


def test_files_that_are_missing_are_no_log(fresh: Killed) -> None:
    fresh.check(flipped(fresh.log, len(fresh.log) * 8 - 1))
    fresh.write()
    assert check_files(str(fresh.path)).verdict is Verdict.TORN
    for name in ("it.db-wal", "it.db"):
        fresh.path.with_name(name).unlink()
        assert check_files(str(fresh.path)).verdict is Verdict.NOTHING


def test_a_header_that_was_torn_as_a_copied_log_began_anew_costs_nothing(tmp_path: Path) -> None:
    killed = Killed(tmp_path, "copied")
    for cut in range(12, 32):
        log = killed.log[:cut] + random.Random(cut).randbytes(32 - cut) + killed.log[32:]
        assert killed.judge(log, cut) is Verdict.WHOLE


def test_two_torn_tails_in_a_row_are_no_damage(fresh: Killed) -> None:
    """The rest of a first one lies behind the second one, with the same salts and an end of its own."""
    begin, end = fresh.last
    torn = bytearray(fresh.log)
    torn[begin + 30] ^= 1
    assert fresh.check(bytes(torn)).verdict is Verdict.TORN
    fresh.write()
    with closing(sqlite3.connect(fresh.path, isolation_level=None)) as writer:
        writer.execute("INSERT INTO row VALUES (?, 'short')", (fresh.rows,))
        log = bytearray(fresh.path.with_name("it.db-wal").read_bytes())
    assert len(log) == end
    log[begin + 30] ^= 1
    assert fresh.check(bytes(log)).verdict is Verdict.TORN


def test_a_log_of_the_usual_size_is_checked_at_once(tmp_path: Path) -> None:
    """16 MB take a second at most, of this process's own time."""
    path = tmp_path / "big.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        for pragma in ("journal_mode=WAL", "synchronous=OFF", "wal_autocheckpoint=0"):
            writer.execute(f"PRAGMA {pragma}")
        writer.execute("CREATE TABLE row (text BLOB)")
        for n in range(16):
            writer.execute("INSERT INTO row VALUES (?)", (random.Random(n).randbytes(1 << 20),))
        shutil.copy(f"{path}-wal", tmp_path / "copy.db-wal")
        (tmp_path / "copy.db").write_bytes(path.read_bytes())
    before = time.process_time()
    assert check_files(str(tmp_path / "copy.db")).verdict is Verdict.WHOLE
    assert time.process_time() - before < 3.0, "three times what it may take, for a machine that is busy"


def test_the_checksums_of_either_byte_order_are_known(fresh: Killed) -> None:
    """A log that a big-endian machine wrote, made of this one's by summing it anew."""
    log = bytearray(fresh.log)
    log[3] ^= 1
    order = ">" if log[3] & 1 else "<"

    def summed(data: bytes, one: int, two: int) -> tuple[int, int]:
        words = struct.unpack(f"{order}{len(data) // 4}I", data)
        for n in range(0, len(words), 2):
            one = (one + words[n] + two) % 2**32
            two = (two + words[n + 1] + one) % 2**32
        return one, two

    sums = summed(bytes(log[:24]), 0, 0)
    log[24:32] = struct.pack(">2I", *sums)
    for at in range(32, len(log), FRAME):
        sums = summed(bytes(log[at : at + 8] + log[at + 24 : at + FRAME]), *sums)
        log[at + 16 : at + 24] = struct.pack(">2I", *sums)
    assert fresh.judge(bytes(log), order) is Verdict.WHOLE
    assert fresh.check(flipped(bytes(log), (fresh.last[0] - 9) * 8)).verdict is Verdict.DAMAGED
