"""A keeper to speak to by hand, for the tests of its work and of its life."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slave.tree_harness import Client, Ward, ward


@pytest.fixture(name="ward")
def ward_fixture(tmp_path: Path) -> Iterator[Ward]:
    with ward(tmp_path) as it:
        yield it


@pytest.fixture
def keeper(ward: Ward) -> Iterator[Client]:
    client = Client.start(ward)
    yield client
    last = Client.attach(ward)
    last.greet()
    last.child = client.child
    last.shutdown()
    client.close()
