"""State folders of slaves: what is on their disks, and what becomes of a copy of one."""

import os
import tempfile
from random import Random

from msgspec import Struct, field, structs

from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import SlaveLimits
from drqueue.slave import identity
from drqueue.slave.core.processes import LaunchFailed, ProcessEnded
from drqueue.slave.core.records import Record


class Folder(Struct):
    """One slave's state folder on one machine, which its fingerprint names.

    `safe` records of the spool survive a power cut. `ended` is what a keeper wrote down for want of a daemon.
    """

    identity: str
    fingerprint: str
    spool: list[Record] = field(default_factory=list)
    safe: int = 0
    limits: SlaveLimits = field(default_factory=SlaveLimits)
    farm: str = ""
    epoch: int = 0
    life: str = ""
    ended: dict[AttemptKey, ProcessEnded | LaunchFailed] = field(default_factory=dict)

    def lose_tail(self, rng: Random) -> None:
        """The power fails: what was not yet written for good may be gone, from some record on."""
        unsafe = len(self.spool) - self.safe
        if unsafe > 0:
            del self.spool[self.safe + rng.randint(0, unsafe) :]

    def copied(self, number: int, fingerprint: str) -> "Folder":
        """What a slave finds that is started on a copy: on that very machine, or on another.

        Whether it is told from the original is the real code's word.
        """
        copy = structs.replace(
            self,
            fingerprint=fingerprint,
            spool=list(self.spool),
            ended=dict(self.ended),
        )
        if _is_new(self, fingerprint):
            copy.identity, copy.spool, copy.safe, copy.ended = f"id-{number}", [], 0, {}
        return copy


def _is_new(folder: Folder, fingerprint: str) -> bool:
    """Whether a slave that starts on a copy takes an identity of its own.

    On another machine the copy is at the same place, and its original is not to be seen.
    """
    with tempfile.TemporaryDirectory(prefix="drqueue-sim-") as place:
        here, there = os.path.join(place, "original"), os.path.join(place, "copy")
        if fingerprint != folder.fingerprint:
            there = here
        for path in {here, there}:
            os.mkdir(path)
            kept = identity.Identity(
                folder.identity,
                "s",
                folder.fingerprint,
                path=os.path.realpath(here),
                marks=(folder.fingerprint,),
            )
            identity.save(path, kept)
        machine = identity.Machine(fingerprint, (fingerprint,))
        return identity.load_or_create(there, "s", machine).id != folder.identity
