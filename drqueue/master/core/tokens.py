"""The tokens of jobs that are gone: a submission that is tried again after its job was deleted is not new.

Bounded: the job whose number is one round higher takes the place of an older one.
"""

from collections.abc import Mapping
from typing import Final

from drqueue.master.core.records import MetaRecord

#: How many are kept. A client that tries again does so within seconds or minutes.
KEPT: Final = 1000
_ROW: Final = "gone-token-"


class GoneTokens:
    """Which token was which job's."""

    def __init__(self) -> None:
        self._places: dict[int, str] = {}
        self._jobs: dict[str, int] = {}

    def job(self, token: str) -> int | None:
        """The job that this token once made, if it is known."""
        return self._jobs.get(token)

    def add(self, job: int, token: str) -> MetaRecord:
        """A job is gone; the row that keeps its token."""
        place = job % KEPT
        self._put(place, job, token)
        return MetaRecord(f"{_ROW}{place}", f"{job} {token}")

    def restore(self, meta: Mapping[str, str]) -> None:
        """Take up what was kept. ValueError where it is corrupt."""
        for name, value in meta.items():
            if name.startswith(_ROW):
                job, _, token = value.partition(" ")
                self._put(int(name.removeprefix(_ROW)), int(job), token)

    def _put(self, place: int, job: int, token: str) -> None:
        self._jobs.pop(self._places.get(place, ""), None)
        self._places[place] = token
        self._jobs[token] = job
