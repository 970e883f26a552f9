"""The first admin: `admin.json` in the master's state directory, and the account that it opens.

Rules: the account is committed before the file is there, so a file without an account is of an account that
was revoked, and is left alone. A file that is gone is made anew at the next start, and its account then takes
the place of the one before it. The file says the address, port and pin of today.
"""

import os
import secrets
from collections.abc import Sequence

from msgspec import Struct

from drqueue import log
from drqueue.access import Access, read_access, write_access
from drqueue.address import DEFAULT_PORT, Address
from drqueue.master.core.records import AccountForget, AccountRecord, AnyRecord
from drqueue.proto import lines

ADMIN_FILE = "admin.json"
NAME = "admin"
#: Who made the account: no login name has a blank, so that no account of a person is taken for it.
MAKER = "the master"


class Admin(Struct, frozen=True):
    """What a start has to do: rows to commit, then the file to write (None: it stands as it should)."""

    path: str
    save: tuple[AnyRecord, ...] = ()
    access: Access | None = None

    def write(self) -> None:
        """Write the file, once the rows are committed. Raises AccessError."""
        if self.access is not None:
            write_access(self.path, [self.access])


def prepare(
    state_dir: str, accounts: Sequence[AccountRecord], farm: str, address: Address, pin: str, wall: float
) -> Admin:
    """The admin of a master that starts, with the accounts that it has. Raises AccessError."""
    path = os.path.join(state_dir, ADMIN_FILE)
    found = read_access(path)
    if not found or found[0].farm != farm:
        return _new(path, accounts, farm, address, pin, wall)
    way = found[0]
    shown = lines.secret_hash(way.secret)
    if not any(shown in (account.secret_hash, account.next_hash) for account in accounts):
        log.warning("admin.json opens nothing any more: delete it and start again for a new one", path=path)
        return Admin(path)
    now = _access(farm, address, pin, way.account, way.secret)
    return Admin(path, access=None if found == [now] else now)


def with_rows(accounts: Sequence[AccountRecord], save: Sequence[AnyRecord]) -> list[AccountRecord]:
    """The accounts as they are once these rows are committed."""
    kept = {account.id: account for account in accounts}
    for row in save:
        if isinstance(row, AccountRecord):
            kept[row.id] = row
        elif isinstance(row, AccountForget):
            kept.pop(row.id, None)
    return list(kept.values())


def anybody_joined(accounts: Sequence[AccountRecord]) -> bool:
    """Whether anybody but the admin of the master's own file has a way in, and so knows its certificate."""
    return any(not account.pending and not _made_here(account) for account in accounts)


def _made_here(account: AccountRecord) -> bool:
    return account.created_by == MAKER and account.name == NAME


def _new(
    path: str, accounts: Sequence[AccountRecord], farm: str, address: Address, pin: str, wall: float
) -> Admin:
    secret = lines.encoded(secrets.token_bytes(lines.SECRET_BYTES))
    hashed = lines.secret_hash(secret)
    account = AccountRecord(
        id=lines.account_id(hashed),
        kind="user",
        name=NAME,
        role="admin",
        secret_hash=hashed,
        created_at=wall,
        created_by=MAKER,
    )
    gone = [AccountForget(old.id) for old in accounts if _made_here(old)]
    return Admin(path, (*gone, account), _access(farm, address, pin, account.id, secret))


def _access(farm: str, address: Address, pin: str, account: str, secret: str) -> Access:
    return Access(
        host=address.host,
        port=address.port or DEFAULT_PORT,
        pin=pin,
        farm=farm,
        account=account,
        name=NAME,
        role="admin",
        secret=secret,
    )
