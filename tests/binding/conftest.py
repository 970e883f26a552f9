"""What the tests of this folder share: gates for the frames of a job, and farms that are left empty."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import drqueue
from tests.binding.farm import GATED, Gates, a_job, sent

Gated = Callable[..., tuple[drqueue.job, Gates]]


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[Gated]:
    """Makes and sends jobs whose runs end when the gates say so: gated(END, **fields) -> (job, gates)."""
    opened: list[Gates] = []

    def make(end: int = 1, numbers: Sequence[int] = (), **fields: Any) -> tuple[drqueue.job, Gates]:
        gates = Gates(tmp_path / f"gates-{len(opened)}", numbers or range(1, end + 1))
        opened.append(gates)
        job = a_job(GATED, end=end, **fields)
        job.environment_variable_add("GATES", str(gates.folder))
        return sent(job), gates

    yield make
    for gates in opened:
        gates.close()
