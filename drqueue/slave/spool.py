"""The spool: one append-only journal in which a slave keeps what it must not forget.

A file is a header (magic, version) and records: length, crc32 of length and body, msgpack body.
Rules: it survives kill -9, so appending does no fsync; after a power cut the boot id speaks. What
does not check out ends the journal: records before it count, it and what follows are cut off (and
kept aside where more than a torn tail is lost). Whatever is accepted can be read back. Nothing is
known here about what the records mean. One thread at a time, one slave per file (the state
directory's lock sees to that).
"""

import os
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from zlib import crc32

import msgpack

from drqueue import failpoints
from drqueue.statefile import StateError, sync_dir

MAGIC = b"DrQspool"
VERSION = 1
#: A record's largest body in bytes: far above a report with both ends of a log.
MAX_RECORD = 1 << 20
#: A journal below this size is never worth compacting.
COMPACT_ABOVE = 1 << 20

_HEADER = MAGIC + struct.pack(">I", VERSION)
_PREFIX = struct.Struct(">II")
_LENGTH = struct.Struct(">I")


def encode(record: object) -> bytes:
    """One record as it stands in the file; raises ValueError for what could not be read back."""
    try:
        body: bytes = msgpack.packb(record)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"not a record: {error}") from error
    framed = framed_all((body,))
    _decode(body)
    return framed


def framed_all(bodies: Iterable[bytes]) -> bytes:
    """Records, encoded already, as they stand in the file; raises ValueError where one is too large."""
    parts: list[bytes] = []
    for body in bodies:
        size = len(body)
        if size > MAX_RECORD:
            raise ValueError(f"a record of {size} bytes is larger than {MAX_RECORD}")
        parts += (_PREFIX.pack(size, crc32(body, _checksum_of(size))), body)
    return b"".join(parts)


@lru_cache(maxsize=4096)
def _checksum_of(size: int) -> int:
    return crc32(_LENGTH.pack(size))


def _decode(body: bytes) -> object:
    try:
        return msgpack.unpackb(
            body,
            strict_map_key=True,
            max_str_len=MAX_RECORD,
            max_bin_len=MAX_RECORD,
            max_array_len=100_000,
            max_map_len=100_000,
            max_ext_len=0,
        )
    except (msgpack.UnpackException, RecursionError) as error:
        raise ValueError(f"not a record: {error}") from error


def _checksum(body: bytes) -> int:
    return crc32(body, _checksum_of(len(body)))


class Spool:
    """An open journal. `load` first, then `append`; both raise OSError as the disk does.

    `cut` is the number of bytes that the last `load` cut off (0: the journal was whole); `damaged` is
    the name under which the old file was kept where that was more than a torn tail, else None.
    """

    def __init__(self, path: str) -> None:
        """Open or create the journal; raises StateError where something else lies there, or OSError."""
        self.path = path
        self.cut = 0
        self.damaged: str | None = None
        self._file = -1
        self._size = 0
        self._unclean = False
        self._compact_above = COMPACT_ABOVE
        self._open()

    @property
    def size(self) -> int:
        """Bytes in the journal."""
        return self._size

    @property
    def wants_compaction(self) -> bool:
        """Whether the journal has grown to four times what was live when it was last compacted."""
        return self._size > self._compact_above

    def load(self) -> list[object]:
        """All records up to the first that is torn or corrupt; what follows is cut off."""
        records: list[object] = []
        good, torn = len(_HEADER), True
        with open(os.dup(self._file), "rb") as file:
            end = os.fstat(self._file).st_size
            file.seek(good)
            while good < end and (part := file.read(_PREFIX.size)):
                length, checksum = _PREFIX.unpack(part.ljust(_PREFIX.size, b"\0"))
                body = file.read(min(length, MAX_RECORD))
                if len(part) < _PREFIX.size or length > len(body):
                    torn = length <= MAX_RECORD
                    break
                try:
                    if not body or _checksum(body) != checksum:
                        raise ValueError("not what was written")
                    records.append(_decode(body))
                except ValueError:
                    torn = False
                    break
                good += _PREFIX.size + length
        self.cut = end - good
        self._size = good
        if self.cut and not torn:
            self._keep_damaged(records)  # which writes them anew, perhaps at another length
        elif self.cut:
            os.ftruncate(self._file, good)
        return records

    def _keep_damaged(self, records: list[object]) -> None:
        """Go on with the good records in a new file; the old one, whole, gets another name."""
        name = self._free_name("damaged")
        os.link(self.path, name)
        try:
            self.compact(records)
        except OSError:
            os.unlink(name)
            raise
        self.damaged = name

    def append(self, records: Sequence[object]) -> None:
        """Write records, all or none. Raises ValueError for what is no record, OSError for a full disk."""
        self._append(b"".join(map(encode, records)))

    def append_encoded(self, bodies: Iterable[bytes]) -> None:
        """The same for what is msgpack already, and is known to be readable."""
        self._append(framed_all(bodies))

    def _append(self, data: bytes) -> None:
        if not data:
            return
        if self._unclean:
            os.ftruncate(self._file, self._size)
            self._unclean = False
        try:
            if failpoints.ACTIVE:
                failpoints.hit("append-before")
                failpoints.hit("append-half", lambda: _write(self._file, data[: len(data) // 2], self._size))
            _write(self._file, data, self._size)
        except OSError:
            self._unclean = True
            os.ftruncate(self._file, self._size)
            self._unclean = False
            raise
        self._size += len(data)
        if failpoints.ACTIVE:
            failpoints.hit("append-after")

    def compact(self, records: Iterable[object]) -> None:
        """Replace the journal by one that holds just these; on OSError or ValueError the old one stays."""
        temporary = f"{self.path}.new"
        try:
            file, size = _create(temporary, records)
            try:
                if failpoints.ACTIVE:
                    failpoints.hit("compact-before")
                os.rename(temporary, self.path)
            except OSError:
                os.close(file)
                raise
        except (OSError, ValueError):
            # Not at every call again while the disk is full.
            self._compact_above = self._size + COMPACT_ABOVE
            _unlink_if_there(temporary)
            raise
        if failpoints.ACTIVE:
            failpoints.hit("compact-after")
        os.close(self._file)
        self._file, self._size, self._unclean = file, size, False
        self._compact_above = max(COMPACT_ABOVE, 4 * size)

    def set_aside(self, suffix: str) -> str:
        """Rename the journal to PATH.SUFFIX (-2, -3 ... where taken) and go on with an empty one.

        Returns the new name; raises OSError.
        """
        name = self._free_name(suffix)
        os.rename(self.path, name)
        os.close(self._file)
        self._file = -1
        self._open()
        return name

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _open(self) -> None:
        try:
            file = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            file = -1
        if file >= 0:
            try:
                header = os.pread(file, len(_HEADER), 0)
                self._check_header(header)
            except BaseException:
                os.close(file)
                raise
            if header != _HEADER:
                # Killed while creating it, or zeros after a power cut.
                if os.fstat(file).st_size > len(header):
                    self.damaged = self._free_name("damaged")
                    os.rename(self.path, self.damaged)
                os.close(file)
                file = -1
        if file < 0:
            temporary = f"{self.path}.new"
            try:
                file, _ = _create(temporary, ())
                os.rename(temporary, self.path)
            except OSError:
                _unlink_if_there(temporary)
                raise
            sync_dir(os.path.dirname(self.path))
        os.fchmod(file, 0o600)
        self._file = file
        self._size = len(_HEADER)
        self._compact_above = COMPACT_ABOVE

    def _check_header(self, header: bytes) -> None:
        """Refuse another program's or another version's file; a start of a header, or zeros, pass."""
        if header == _HEADER or _HEADER.startswith(header) or not header.strip(b"\0"):
            return
        if header[: len(MAGIC)] == MAGIC:
            version = int.from_bytes(header[len(MAGIC) :], "big")
            raise StateError(f"{self.path} has format {version}; this DrQueue reads format {VERSION}")
        raise StateError(f"{self.path} is damaged or no spool; move it away to start without it")

    def _free_name(self, suffix: str) -> str:
        name, number = f"{self.path}.{suffix}", 1
        while os.path.lexists(name):
            number += 1
            name = f"{self.path}.{suffix}-{number}"
        return name


def _create(path: str, records: Iterable[object]) -> tuple[int, int]:
    """Write a whole journal and bring it to the disk; its open file and size."""
    _unlink_if_there(path)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        size = _write(file, _HEADER, 0)
        for record in records:
            size += _write(file, encode(record), size)
        os.fsync(file)
    except (OSError, ValueError):
        os.close(file)
        raise
    return file, size


def _write(file: int, data: bytes, offset: int) -> int:
    """Write all of it at an offset; one call unless the disk takes only a part. Returns len(data)."""
    done = os.pwrite(file, data, offset)
    while done < len(data):
        done += os.pwrite(file, memoryview(data)[done:], offset + done)
    return done


def _unlink_if_there(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
