"""`farm.json`: what a restored database must not take back.

The farm's random id, the highest epoch handed out, bounds above all job and slave ids handed out, accounts
that are gone, and the longest grant of time that slaves may still count on.
"""

import math
from collections.abc import Sequence
from typing import Final, cast

from msgspec import Struct
from msgspec.structs import asdict, replace

from drqueue.master.core.records import AccountForget, AccountRecord, AnyRecord, MetaRecord
from drqueue.statefile import StateError, read_json, write_json_atomic

FARM_FILE: Final = "farm.json"

#: The core's named values that count ids.
META_NEXT_JOB: Final = "next_job"
META_NEXT_SLAVE: Final = "next_slave"

#: How many ids are reserved at once: so rarely is farm.json written, so many are skipped by a restore.
RESERVED: Final = 1000

#: Accounts that are gone, of which farm.json tells; the oldest are dropped first.
GONE_MOST = 20_000

#: What may have been granted where nobody noted it: a farm.json of an older version, or one written by hand.
UNKNOWN_GRANT_S: Final = 86400.0

#: Of rows of these kinds farm.json tells, too; by far the most are of others.
TOLD: Final = frozenset({AccountForget, AccountRecord, MetaRecord})


class FarmFile(Struct, frozen=True):
    """What farm.json says. Ids of jobs and slaves below `jobs` and `slaves` may have been handed out.

    `gone`: ids of accounts that ended, oldest first. `granted_s`: seconds for which a master let slaves go on
    without one, the longest that may still last.
    """

    farm: str
    epoch: int
    jobs: int = 0
    slaves: int = 0
    gone: tuple[str, ...] = ()
    granted_s: float = 0.0


def reaching(farm: FarmFile, records: Sequence[AnyRecord]) -> FarmFile:
    """What must be noted before these rows are committed."""
    jobs, slaves, gone = farm.jobs, farm.slaves, farm.gone
    for record in records:
        if type(record) is AccountForget:
            if record.id not in gone:
                gone = (*gone[1 - GONE_MOST :], record.id)
        elif type(record) is AccountRecord:
            if record.id in gone:
                gone = tuple([number for number in gone if number != record.id])
        elif type(record) is MetaRecord:
            if record.name == META_NEXT_JOB and int(record.value) > jobs:
                jobs = int(record.value) + RESERVED
            elif record.name == META_NEXT_SLAVE and int(record.value) > slaves:
                slaves = int(record.value) + RESERVED
    return replace(farm, jobs=jobs, slaves=slaves, gone=gone)


def write_farm(path: str, farm: FarmFile) -> None:
    """Replace the file; it is on the disk when this returns. Raises StateError, the old one then stays."""
    value = asdict(farm)
    if not farm.gone:
        del value["gone"]
    write_json_atomic(path, value)


def read_farm(path: str) -> FarmFile | None:
    """What the file says, None where there is no file. Raises StateError."""
    value = read_json(path)
    if value is None:
        return None
    farm, *numbers = (value.get("farm"), value.get("epoch"), value.get("jobs", 0), value.get("slaves", 0))
    gone = value.get("gone", [])
    granted = value.get("granted_s", UNKNOWN_GRANT_S)
    named = isinstance(gone, list) and all(isinstance(number, str) for number in gone)
    if (
        not isinstance(farm, str)
        or not farm
        or any(type(n) is not int or n < 0 for n in numbers)
        or type(granted) not in (int, float)
        or not 0 <= cast(float, granted) < math.inf
        or not named
    ):
        raise StateError(f"{path} is damaged: it must hold a farm's id and an epoch; restore it")
    epoch, jobs, slaves = cast(list[int], numbers)
    return FarmFile(farm, epoch, jobs, slaves, tuple(cast(list[str], gone)), float(cast(float, granted)))
