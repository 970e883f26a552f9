"""A sick slave, as the master's process tells of it: its log, and the settings that say when."""

from pathlib import Path

import pytest

from drqueue.proto.link_messages import Exited, Orders, Report
from drqueue.proto.messages import GetSlave, SlaveInfo, SlaveVerb, Submit, Submitted
from tests.builders import a_hello, a_job, badly
from tests.master.test_daemon import Link, a_master

pytestmark = pytest.mark.slow


def test_a_sick_slave_is_in_the_log_and_the_settings_say_when_it_is_one(tmp_path: Path) -> None:
    """Two failures in a row, of one user at first."""
    with (
        a_master(tmp_path / "state", DRQUEUE_SICK_AFTER="2", DRQUEUE_AVOID_AFTER="0") as master,
        master.link() as client,
        Link(master.socket) as slave,
    ):
        slave.greet(role="slave")
        slave.sock.sendall(slave._connection.send(a_hello("s7", cores=1)))
        for number, owner in enumerate(("anna", "anna", "ben")):
            spec = a_job("1", owner=owner, layer={"retries": 0})
            submitted = client.ask(Submit, token=f"token-{number:06d}", spec=spec)
            assert isinstance(submitted, Submitted)
            while not (isinstance(message := slave.hear(), Orders) and message.run):
                assert message is not None
            info = client.ask(GetSlave, slave="s7")
            assert isinstance(info, SlaveInfo)
            assert info.slave.sick == ""
            key = message.run[0].key
            slave.sock.sendall(slave._connection.send(Report(exited=(Exited(key, badly()),))))
        said = master.logged("slave is sick")
        assert "slave=s7" in said
        assert "2 frames of 2 users failed on it in a row, the last of job 2: exit 1" in said
        assert client.ask(SlaveVerb, slave="s7", verb="heal") is not None
        assert master.stop() == 0
