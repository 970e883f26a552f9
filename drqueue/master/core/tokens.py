"""The tokens of jobs that are gone: a submission that is tried again after its job was deleted is not new.

Bounded: the job whose number is one round higher takes the place of an older one.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from drqueue.master.core.records import MetaRecord

#: How many are kept. A client that tries again does so within seconds or minutes.
KEPT: Final = 1000
_ROW: Final = "gone-token-"
_Kept = tuple[int, str, str]


class GoneTokens:
    """Which token was which job's, and who submitted it."""

    def __init__(self) -> None:
        self._places: dict[int, str] = {}
        self._jobs: dict[str, tuple[int, str]] = {}

    def job(self, token: str) -> tuple[int, str] | None:
        """The job that this token once made, and its submitter, if it is known."""
        return self._jobs.get(token)

    def add(self, job: int, token: str, submitter: str) -> MetaRecord:
        """A job is gone; the row that keeps its token."""
        place = job % KEPT
        self._put(place, (job, token, submitter))
        return MetaRecord(f"{_ROW}{place}", msgspec.json.encode((job, token, submitter)).decode())

    def restore(self, meta: Mapping[str, str]) -> None:
        """Take up what was kept. ValueError where it is corrupt."""
        for name, value in meta.items():
            if name.startswith(_ROW):
                self._put(int(name.removeprefix(_ROW)), _read(value))

    def _put(self, place: int, kept: _Kept) -> None:
        job, token, submitter = kept
        self._jobs.pop(self._places.get(place, ""), None)
        self._places[place] = token
        self._jobs[token] = (job, submitter)


def _read(value: str) -> _Kept:
    if value.startswith("["):
        kept: _Kept = msgspec.json.decode(value, type=_Kept)
        return kept
    # As it was kept before jobs had submitters.
    job, _, token = value.partition(" ")
    return int(job), token, ""
