"""Whose place a node that joins takes: that of the very same slave, never that of one that says little."""

import pytest

from tests.master.access import AccessFarm


@pytest.mark.parametrize(("identity", "fingerprint"), [("", "machine"), ("slave", ""), ("", "")])
def test_who_does_not_say_which_slave_it_is_takes_nobodys_place(identity: str, fingerprint: str) -> None:
    farm = AccessFarm()
    for name in ("n1", "n2"):
        farm.joins(name, farm.add_line(), identity=identity, fingerprint=fingerprint)
    assert [view.name for view in farm.accounts() if view.state == "active"] == ["n1", "n2"]
