"""Is the write-ahead log beside the database what SQLite wrote? Asked before SQLite opens the two.

SQLite ends its replay at the first frame that is wrong and calls that normal: all that was committed after
a flipped bit vanishes without a word. The format's rules, from https://sqlite.org/fileformat2.html, section
4: numbers are big-endian. The header has 32 bytes: a magic number whose lowest bit tells in which byte order
checksums read their words, the format's version, the page size, how many checkpoints there were, two salts,
and a checksum of two words over the 24 bytes so far. A frame is a header of 24 bytes and a page: the page's
number, the database's size in pages where a transaction ends with this frame (else 0), the log's salts, and
a checksum over the first 8 bytes and the page that goes on from the frame before (the first one's from the
header). A log that was copied into the database whole is written anew from its start, with other salts:
frames of before that are left behind the new ones bear salts of their own.

Rules: a transaction is on the disk before the next one writes its first frame, and a log's header before
any frame. So a kill or a power cut tears the last transaction at most; a log that ends so is TORN. DAMAGED
is a log with a wrong frame at or behind which a transaction follows on one that ended, and one without a
header whose frames say what the database does not. One wrong bit before the last transaction is DAMAGED,
wherever it is.
"""

import struct
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import BinaryIO, Final, NamedTuple

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
#: Bytes of the header that its checksum covers.
_HEADER_SUMMED: Final = 24
_MAGIC: Final = 0x377F0682
_FORMAT: Final = 3007000
#: Where the database's header has its page size, 2 bytes; 1 means 65536.
_PAGE_SIZE_AT: Final = 16
_WORD: Final = 0xFFFFFFFF
#: Read at once.
_READ_BYTES: Final = 1 << 16

Sums = tuple[int, int]


class Verdict(Enum):
    """What may be made of a log. NOTHING: there is none that could be replayed, nor frames of one."""

    NOTHING = "nothing"
    WHOLE = "whole"
    TORN = "torn"
    DAMAGED = "damaged"


class Found(NamedTuple):
    """`at` is the byte at which a log that is TORN or DAMAGED is wrong first."""

    verdict: Verdict
    at: int = 0


class _Frame(NamedTuple):
    page: int
    size: int
    salts: Sums
    sums: Sums

    @property
    def commits(self) -> bool:
        return self.size > 0


class _Log:
    """The frames of a log, by number from 0; `order` is that of a checksum's words."""

    def __init__(self, log: BinaryIO, length: int, page_size: int, order: str) -> None:
        self._log = log
        self._page_size = page_size
        self._order = order
        self._words = struct.Struct(f"{order}{page_size // 4}I")
        self.count = (length - _HEADER.size) // (_FRAME.size + page_size)

    def at(self, number: int) -> int:
        """Where a frame begins."""
        return _HEADER.size + number * (_FRAME.size + self._page_size)

    def frame(self, number: int) -> _Frame:
        self._log.seek(self.at(number))
        page, size, salt1, salt2, sum1, sum2 = _FRAME.unpack(self._log.read(_FRAME.size))
        return _Frame(page, size, (salt1, salt2), (sum1, sum2))

    def content(self, number: int) -> bytes:
        """A frame's page."""
        self._log.seek(self.at(number) + _FRAME.size)
        return self._log.read(self._page_size)

    def sums(self, number: int, frame: _Frame, before: Sums) -> Sums:
        """What the checksum of that frame must be behind that of the frame before."""
        start = struct.pack(">2I", frame.page, frame.size)
        head = struct.unpack(f"{self._order}2I", start)
        return _summed_page(self._words.unpack(self.content(number)), _summed(head, before))


def check_files(path: str) -> Found:
    """Judge the log of the database `path` where there is one; raises OSError."""
    try:
        with open(f"{path}-wal", "rb", buffering=_READ_BYTES) as log, open(path, "rb") as database:
            return check_log(log, database)
    except FileNotFoundError:
        return Found(Verdict.NOTHING)


def check_log(log: BinaryIO, database: BinaryIO) -> Found:
    """Judge a log by its bytes; of the database only what a log without a header says is looked at."""
    length = log.seek(0, 2)
    if length < _HEADER.size:
        return Found(Verdict.NOTHING)
    log.seek(0)
    header = log.read(_HEADER.size)
    magic, version, page_size, _, salt1, salt2, *sums = _HEADER.unpack(header)
    order = ">" if magic & 1 else "<"
    words = struct.unpack(f"{order}{_HEADER_SUMMED // 4}I", header[:_HEADER_SUMMED])
    good = magic & ~1 == _MAGIC and version == _FORMAT and _summed(words, (0, 0)) == tuple(sums)
    if not good or not _is_page_size(page_size):
        return _without_header(log, length, database)
    frames = _Log(log, length, page_size, order)
    if not frames.count:
        return Found(Verdict.NOTHING)
    before: Sums = (sums[0], sums[1])
    for number in range(frames.count):
        frame = frames.frame(number)
        if (
            frame.page == 0
            or frame.salts != (salt1, salt2)
            or frames.sums(number, frame, before) != frame.sums
        ):
            return _behind(frames, number, before, (salt1, salt2))
        before = frame.sums
    return Found(Verdict.WHOLE)


def _behind(frames: _Log, wrong: int, before: Sums, salts: Sums) -> Found:
    """The first wrong frame and those behind it: does a transaction follow on one that was committed?"""

    def of_this_log(frame: _Frame) -> bool:
        # One of them is enough: the other one may be what is wrong.
        return frame.salts[0] == salts[0] or frame.salts[1] == salts[1]

    ended = False
    for number in range(wrong, frames.count):
        frame = frames.frame(number)
        if not of_this_log(frame):
            continue
        starts = {frame.sums}
        commits = frame.commits
        if number == wrong:
            # Its checksum may be what is wrong of it, or its size, of which one bit was set.
            starts.add(frames.sums(number, frame, before))
            commits = commits or any(
                frames.sums(number, frame._replace(size=1 << bit), before) == frame.sums for bit in range(32)
            )
        if not commits:
            continue
        ended = True
        if number + 1 < frames.count:
            following = frames.frame(number + 1)
            if of_this_log(following) and any(
                frames.sums(number + 1, following, start) == following.sums for start in starts
            ):
                return Found(Verdict.DAMAGED, frames.at(wrong))
    return Found(Verdict.TORN, frames.at(wrong)) if ended else Found(Verdict.WHOLE)


def _without_header(log: BinaryIO, length: int, database: BinaryIO) -> Found:
    """A log whose header is wrong: nothing is lost where the database has all that its frames say.

    So it is where a power cut tore the header as a copied log was written anew.
    """
    page_size = _page_size(database)
    if not _is_page_size(page_size):
        return Found(Verdict.NOTHING)
    frames = _Log(log, length, page_size, "<")
    latest: dict[int, int] = {}
    ended: dict[int, int] = {}
    pages = 0
    for number, frame in _of_one_log(frames):
        latest[frame.page] = number
        if frame.commits:
            ended, pages = dict(latest), frame.size
    for page, number in ended.items():
        database.seek((page - 1) * page_size)
        if page <= pages and database.read(page_size) != frames.content(number):
            return Found(Verdict.DAMAGED)
    return Found(Verdict.WHOLE if ended else Verdict.NOTHING)


def _of_one_log(frames: _Log) -> Iterator[tuple[int, _Frame]]:
    """The frames from the first one on that bear its salts."""
    first = frames.frame(0) if frames.count else None
    for number in range(frames.count):
        frame = frames.frame(number)
        if first is None or frame.page == 0 or frame.salts != first.salts:
            return
        yield number, frame


def _page_size(database: BinaryIO) -> int:
    database.seek(_PAGE_SIZE_AT)
    size = int.from_bytes(database.read(2), "big")
    return 65536 if size == 1 else size


def _is_page_size(size: int) -> bool:
    return 512 <= size <= 65536 and size & (size - 1) == 0


def _summed(words: Iterable[int], before: Sums) -> Sums:
    """SQLite's checksum over an even number of words, going on from another one."""
    one, two = before
    pairs = iter(words)
    for first, second in zip(pairs, pairs, strict=True):
        one = (one + first + two) & _WORD
        two = (two + second + one) & _WORD
    return one, two


def _summed_page(words: Iterable[int], before: Sums) -> Sums:
    """The same over a page, whose words come in eights: cut to 32 bits once in four pairs, it takes 2/3."""
    one, two = before
    w = iter(words)
    for a, b, c, d, e, f, g, h in zip(w, w, w, w, w, w, w, w, strict=True):
        one += a + two
        two += b + one
        one += c + two
        two += d + one
        one += e + two
        two += f + one
        one = (one + g + two) & _WORD
        two = (two + h + one) & _WORD
    return one, two
