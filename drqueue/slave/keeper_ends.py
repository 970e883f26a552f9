"""How frames ended while no daemon was there, as the keeper left it in `keeper.ended`.

Rules: what cannot be read is told in one sentence, and counts as not known. The file goes only when whoever
asks has all of it for good.
"""

import logging
import os
from collections.abc import Callable, Mapping

import msgspec

from drqueue.proto.ids import AttemptKey
from drqueue.slave import proctree, unheard
from drqueue.slave.core.processes import LaunchFailed, ProcessEnded

log = logging.getLogger(__name__)

_End = ProcessEnded | LaunchFailed
_decoder: msgspec.json.Decoder[_End] = msgspec.json.Decoder(_End)


class KeeperEnds:
    """One slave's file."""

    def __init__(self, state_dir: str) -> None:
        self._state_dir = state_dir
        self._path = os.path.join(state_dir, unheard.NAME)
        self._said = ""

    def __bool__(self) -> bool:
        """Whether there is one."""
        return os.path.lexists(self._path)

    def of(self, wanted: Mapping[AttemptKey, tuple[int, int] | None]) -> list[_End]:
        """How these ended, as far as that stands there: process id and birth by attempt, None: not known."""
        if not wanted:
            return []
        ends = {end.key: end for end in self._read() or () if end.key in wanted}
        for key in list(ends):
            where = wanted[key]
            if where is not None and proctree.alive(*where):
                log.error("%s tells of the end of attempt %s, which still runs", self._path, key)
                del ends[key]
        return list(ends.values())

    def drop(self, is_safe: Callable[[AttemptKey], bool]) -> None:
        """Remove the file, unless the end of one of its attempts is not safe anywhere else."""
        ends = self._read() if self else None
        if ends is not None and all(is_safe(end.key) for end in ends):
            try:
                unheard.remove(self._state_dir)
            except OSError as error:
                self._say(f"{self._path} cannot be removed: {error.strerror}")

    def _read(self) -> list[_End] | None:
        try:
            lines, damaged = unheard.read(self._state_dir)
        except OSError as error:
            self._say(f"{self._path} cannot be read: {error.strerror}; how frames ended may stay unknown")
            return None
        found = []
        for line in lines:
            try:
                found.append(_decoder.decode(line))
            except (ValueError, RecursionError):
                damaged += 1
        if damaged:
            self._say(f"{self._path} is damaged in {damaged} places; how some frames ended may stay unknown")
        return found

    def _say(self, text: str) -> None:
        if text != self._said:
            log.error("%s", text)
        self._said = text
