"""The first admin: made once, kept, made anew where its file is gone; one that was revoked stays revoked."""

import os
import stat
from pathlib import Path

import pytest
from msgspec import structs

from drqueue.access import AccessError, read_access
from drqueue.address import Address
from drqueue.master.admin import ADMIN_FILE, MAKER, anybody_joined, prepare, with_rows
from drqueue.master.core.records import AccountForget, AccountRecord
from drqueue.proto import lines

HERE = Address("tcp", host="10.0.0.1", port=1234)


def started(
    folder: Path, accounts: list[AccountRecord], farm: str = "f", at: Address = HERE, pin: str = "p"
) -> list[AccountRecord]:
    """The accounts after a start."""
    admin = prepare(str(folder), accounts, farm, at, pin, 5.0)
    after = with_rows(accounts, admin.save)
    admin.write()
    return after


def test_the_first_start_makes_an_account_and_the_file_that_opens_it(tmp_path: Path) -> None:
    (account,) = started(tmp_path, [])
    path = tmp_path / ADMIN_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (way,) = read_access(str(path))
    assert (way.name, way.role, way.farm, way.pin, str(way.address)) == (
        "admin", "admin", "f", "p", "10.0.0.1:1234",
    )  # fmt: skip
    assert (account.name, account.role, account.kind, account.created_by) == ("admin", "admin", "user", MAKER)
    assert account.secret_hash == lines.secret_hash(way.secret)
    assert account.id == way.account == lines.account_id(account.secret_hash)
    assert len(lines.decoded(way.secret)) == lines.SECRET_BYTES
    assert way.secret not in repr(account)


def test_the_next_start_changes_nothing(tmp_path: Path) -> None:
    accounts = started(tmp_path, [])
    before = (tmp_path / ADMIN_FILE).read_bytes()
    inode = (tmp_path / ADMIN_FILE).stat().st_ino
    assert started(tmp_path, accounts) == accounts
    assert (tmp_path / ADMIN_FILE).read_bytes() == before
    assert (tmp_path / ADMIN_FILE).stat().st_ino == inode


def test_the_file_follows_the_address_and_keeps_the_secret(tmp_path: Path) -> None:
    accounts = started(tmp_path, [], at=Address("tcp", host="10.0.0.1", port=0))
    (before,) = read_access(str(tmp_path / ADMIN_FILE))
    assert before.port == 1234
    assert started(tmp_path, accounts, at=Address("tcp", host="farm", port=99)) == accounts
    (after,) = read_access(str(tmp_path / ADMIN_FILE))
    assert (after.host, after.port, after.secret) == ("farm", 99, before.secret)


def test_a_lost_file_is_replaced_and_with_it_the_account_but_no_other(tmp_path: Path) -> None:
    (old,) = started(tmp_path, [])
    anna = AccountRecord(
        id="a" * 16, kind="user", name="admin", role="admin", secret_hash="b" * 64, created_at=0,
        created_by="anna",
    )  # fmt: skip
    os.unlink(tmp_path / ADMIN_FILE)
    after = started(tmp_path, [old, anna])
    assert anna in after
    assert old not in after
    assert len(after) == 2
    (way,) = read_access(str(tmp_path / ADMIN_FILE))
    assert way.account in {account.id for account in after}


def test_a_revoked_admin_stays_revoked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    started(tmp_path, [])
    assert started(tmp_path, []) == []
    assert "opens nothing any more" in caplog.text
    (way,) = read_access(str(tmp_path / ADMIN_FILE))
    assert way.secret not in caplog.text


def test_a_secret_that_is_being_exchanged_counts_as_the_accounts(tmp_path: Path) -> None:
    (account,) = started(tmp_path, [])
    from msgspec.structs import replace

    rotated = replace(account, secret_hash="c" * 64, next_hash=account.secret_hash)
    assert started(tmp_path, [rotated]) == [rotated]


def test_a_file_of_another_farm_is_replaced(tmp_path: Path) -> None:
    started(tmp_path, [])
    (before,) = read_access(str(tmp_path / ADMIN_FILE))
    (account,) = started(tmp_path, [], farm="g")
    (after,) = read_access(str(tmp_path / ADMIN_FILE))
    assert (after.farm, after.account) == ("g", account.id)
    assert after.secret != before.secret


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    started(tmp_path, [])
    (tmp_path / ADMIN_FILE).chmod(0o644)
    with pytest.raises(AccessError, match="can be read by others"):
        prepare(str(tmp_path), [], "f", HERE, "p", 0.0)


def test_rows_are_taken_in_order() -> None:
    one = AccountRecord(
        id="1" * 16, kind="user", name="x", role="viewer", secret_hash="d" * 64, created_at=0, created_by="y"
    )
    assert with_rows([one], [AccountForget(one.id), one]) == [one]
    assert with_rows([one], [AccountForget(one.id), AccountForget("2" * 16)]) == []


def test_the_own_admin_alone_is_nobody_who_joined(tmp_path: Path) -> None:
    accounts = started(tmp_path, [])
    assert not anybody_joined(accounts)
    node = AccountRecord(
        id="n", kind="node", name="n1", role="node", secret_hash="h", created_at=1.0, created_by="root"
    )
    assert anybody_joined([*accounts, node])
    assert not anybody_joined([*accounts, structs.replace(node, pending=True)])
