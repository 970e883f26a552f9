"""Rows that contradict each other: a start refuses them with a sentence, whatever their numbers are."""

from contextlib import closing
from pathlib import Path

import pytest

from drqueue.master.core.core import Core
from drqueue.master.core.records import AnyRecord, LayerRecord
from drqueue.master.core.turn import Policy
from drqueue.master.daemon import serve
from drqueue.master.storage import StorageCorrupt
from drqueue.master.storage.memory import MemoryStorage
from drqueue.master.storage.statedir import open_state
from drqueue.settings import MasterSettings
from tests.master.test_storage import attempt, frame, job, slave

ROWS: list[AnyRecord] = [
    frame(1, 3),
    frame(1, 3, state="DONE"),
    attempt(1, 4),
    LayerRecord(job=1, layer=0),
]


@pytest.mark.parametrize("number", [1, -1, 1 << 40])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{type(row).__name__} {getattr(row, 'state', '')}")
def test_a_row_of_a_layer_that_its_job_has_not_is_refused(row: AnyRecord, number: int) -> None:
    storage = MemoryStorage()
    fields = {name: getattr(row, name) for name in row.__struct_fields__} | {"layer": number}
    storage.commit([job(1), slave(3), type(row)(**fields)])
    with pytest.raises(ValueError, match=f"layer {number}, which job 1 has not"):
        Core(Policy(farm="f", epoch=1, software="t"), storage.load(), 0.0, 0.0)


async def test_a_start_tells_of_it_in_one_sentence(tmp_path: Path) -> None:
    """Not as the trace of a program that broke."""
    with closing(open_state(str(tmp_path))) as opened:
        opened.storage.commit([job(1), attempt(1, 1, slave=9)])
        with pytest.raises(StorageCorrupt, match="damaged: attempt 1/0/0/1 runs on slave 9, which is not"):
            await serve(MasterSettings(state_dir=str(tmp_path)), opened, [])
