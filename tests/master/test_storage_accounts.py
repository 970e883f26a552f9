"""What storages keep of who has a way in and who did what; and what they never keep: a secret."""

import secrets
from contextlib import closing
from pathlib import Path

import pytest

from drqueue.master.core.core import Core
from drqueue.master.core.events import ClientAsked, JoinAsked, SlaveLinked, SlaveSaid
from drqueue.master.core.records import AccountForget, LineForget
from drqueue.master.core.turn import Policy
from drqueue.master.storage.sqlite import SqliteStorage
from drqueue.proto import lines
from drqueue.proto.link_messages import Join, SecretTaken
from drqueue.proto.messages import AddLine, Submit
from drqueue.proto.roles import Who
from tests.builders import ADMIN, a_hello, a_job
from tests.master.access_rows import account, audit, line
from tests.master.test_storage import Reopen, reopen

__all__ = ["reopen"]  # a fixture


def test_the_audit_is_read_on_from_a_row_and_from_its_end(reopen: Reopen) -> None:
    storage = reopen()
    rows = [audit(number) for number in (3, 4, 5, 7)]
    storage.commit(rows)
    storage.commit([audit(5, count=9)])
    rows[2] = audit(5, count=9)
    storage = reopen()
    assert storage.load().audited == 7
    assert storage.audit(0, 2) == rows[:2]
    assert storage.audit(4, 10) == rows[2:]
    assert storage.audit(7, 10) == []
    assert storage.audit_latest(3) == rows[1:]
    assert storage.audit_latest(0) == []


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_old_rows_of_the_audit_go_but_never_the_latest(reopen: Reopen, limit: int) -> None:
    """Numbers go on from the latest row, however old it is, and whatever the clock said."""
    storage = reopen()
    storage.commit([audit(1, at=50), audit(2, at=90), audit(3, at=60), audit(4, at=10)])
    gone = 0
    while batch := storage.purge_audit(80, limit):
        assert batch <= limit
        gone += batch
    assert gone == 2
    assert [row.id for row in storage.audit(0, 10)] == [2, 4]
    assert reopen().load().audited == 4


def test_who_has_a_way_in_is_kept_and_forgotten(reopen: Reopen) -> None:
    storage = reopen()
    storage.commit([account("a"), account("b", pending=True, code="AB-CD"), line("x"), line("y")])
    storage.commit([account("a", next_hash="new"), AccountForget("b"), AccountForget("none")])
    storage.commit([line("x", uses_left=1), LineForget("y"), LineForget("none")])
    saved = reopen().load()
    assert list(saved.accounts) == [account("a", next_hash="new")]
    assert list(saved.lines) == [line("x", uses_left=1)]


def test_no_secret_is_in_the_database(tmp_path: Path) -> None:
    """A token, a secret, the next secret and a variable of a refused job: their hashes at most."""
    token = lines.encoded(secrets.token_bytes(lines.TOKEN_BYTES))
    secret, following = (lines.encoded(secrets.token_bytes(lines.SECRET_BYTES)) for _ in range(2))
    number = lines.secret_hash(secret)[:16]
    node = Who(name="n1", role="node", account=number, peer="192.0.2.7")
    join = Join(role="slave", secret_hash=lines.secret_hash(secret), token=token, name="n1")
    bad = a_job(env={"LICENCE_KEY": "confidential-value", "9": "confidential-value"})
    path = tmp_path / "master.db"
    policy = Policy(line_host="h", line_port=1, line_pin=lines.pin_of(b"x"), ticket_seed=b"seed-of-tickets")
    with closing(SqliteStorage(str(path))) as storage:
        core = Core(policy, storage.load(), 0.0, 1000.0)
        for event in (
            ClientAsked(1, AddLine(rq=1, kind="node"), ADMIN, token),
            JoinAsked(1, join, "192.0.2.7:5", "pin"),
            SlaveLinked(2, a_hello("n1"), (), node),
            SlaveSaid(2, SecretTaken(secret_hash=lines.secret_hash(following))),
            ClientAsked(1, Submit(rq=2, token="token-1234", spec=bad), ADMIN),
        ):
            outcome = core.step([event], 1.0)
            storage.commit(outcome.save)
        assert core.authenticate(lines.secret_hash(following)) is not None
        assert [row.outcome for row in storage.audit(0, 100)] == ["done", "done", "done", "done", "bad-job"]
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert lines.secret_hash(secret).encode() in kept
    assert lines.secret_hash(following).encode() in kept
    for telling in (token, secret, following, "confidential-value", "seed-of-tickets"):
        assert telling.encode() not in kept
