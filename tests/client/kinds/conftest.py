"""The bench on which commands of kinds are tried."""

from pathlib import Path

import pytest

from tests.client.kinds.helpers import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Renderers that record what they are called with."""
    return Bench(tmp_path)
