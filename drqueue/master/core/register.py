"""Who has a way into the farm: accounts and lines, with the index that finds an account by its secret.

Nothing here decides anything. Rules: only hashes of secrets and tokens are known; no two accounts have a hash
in common; what is added or dropped goes into `save` with the rest of the step.
"""

from collections.abc import Iterator
from typing import Final

from msgspec import structs

from drqueue.master.core.records import AccountForget, AccountRecord, AnyRecord, LineForget, LineRecord
from drqueue.proto.messages import AccountKind

#: How many accounts, lines not yet used up, and accounts that wait to be approved there may be.
ACCOUNTS_MOST: Final = 20_000
LINES_MOST: Final = 1000
PENDING_MOST: Final = 1000
#: Characters of a line's hash that name it.
LINE_ID: Final = 16
#: Rejected ones that are remembered, so that asking again does not help.
_REJECTED_MOST: Final = 1000


class Register:
    """All accounts and lines."""

    def __init__(self) -> None:
        self.accounts: dict[str, AccountRecord] = {}
        self.lines: dict[str, LineRecord] = {}
        #: Account ids by the hash of their secret, and of the next one.
        self.by_hash: dict[str, str] = {}
        self.pending: dict[str, AccountRecord] = {}
        #: Hashes that an admin rejected, oldest first; a restart forgets them.
        self.rejected: dict[str, None] = {}

    def restore(self, record: AccountRecord) -> None:
        """Take up a row. ValueError where two accounts have a hash in common."""
        for key in _hashes(record):
            if key in self.by_hash:
                raise ValueError(f"accounts {self.by_hash[key]} and {record.id} have the same secret")
        self._index(record)

    def put(self, record: AccountRecord, save: list[AnyRecord]) -> None:
        """Add an account, or change one."""
        self._unindex(record.id)
        self._index(record)
        save.append(record)

    def drop(self, record: AccountRecord, save: list[AnyRecord]) -> None:
        """Its secret opens nothing any more."""
        self._unindex(record.id)
        save.append(AccountForget(record.id))

    def put_line(self, line: LineRecord, save: list[AnyRecord]) -> None:
        """Add a line, or change one."""
        self.lines[line.token_hash] = line
        save.append(line)

    def drop_line(self, line: LineRecord, save: list[AnyRecord]) -> None:
        """Its token opens nothing any more."""
        del self.lines[line.token_hash]
        save.append(LineForget(line.token_hash))

    def use_line(self, line: LineRecord, save: list[AnyRecord]) -> None:
        """It was used once more."""
        if line.uses_left > 1:
            self.put_line(structs.replace(line, uses_left=line.uses_left - 1), save)
        else:
            self.drop_line(line, save)

    def reject(self, record: AccountRecord, save: list[AnyRecord]) -> None:
        """Drop one that waits, and remember that."""
        self.drop(record, save)
        self.rejected[record.secret_hash] = None
        while len(self.rejected) > _REJECTED_MOST:
            del self.rejected[next(iter(self.rejected))]

    def with_hash(self, key: str) -> AccountRecord | None:
        """The account, perhaps a pending one, whose secret, or next secret, has this hash."""
        number = self.by_hash.get(key)
        return None if number is None else self.accounts.get(number) or self.pending[number]

    def named(self, kind: AccountKind, name: str) -> list[AccountRecord]:
        """Accounts of a name: several for a person, one for a node."""
        return [a for a in self.accounts.values() if a.kind == kind and a.name == name]

    def lines_named(self, kind: AccountKind, name: str) -> list[LineRecord]:
        """Lines that make accounts of a name."""
        return [line for line in self.lines.values() if line.kind == kind and line.name == name]

    def called(self, kind: AccountKind, text: str) -> tuple[str, str]:
        """The name of whoever is told by a name or an id; what has that id: account, line, or "" (no id)."""
        account = self.accounts.get(text)
        if account is not None and account.kind == kind and not self.named(kind, text):
            return account.name, "account"
        lines = (line for line in self.lines.values() if line.kind == kind)
        line = next((line for line in lines if line.token_hash[:LINE_ID] == text), None)
        if line is not None and not self.named(kind, text) and not self.lines_named(kind, text):
            return line.name, "line"
        return text, ""

    def expired(self, wall: float, pending_s: float) -> Iterator[LineRecord | AccountRecord]:
        """Lines past their time, and those that waited too long to be approved."""
        yield from [line for line in self.lines.values() if line.expires_at < wall]
        yield from [a for a in self.pending.values() if a.created_at < wall - pending_s]

    def _index(self, record: AccountRecord) -> None:
        (self.pending if record.pending else self.accounts)[record.id] = record
        for key in _hashes(record):
            self.by_hash[key] = record.id

    def _unindex(self, number: str) -> None:
        old = self.accounts.pop(number, None) or self.pending.pop(number, None)
        if old is not None:
            for key in _hashes(old):
                del self.by_hash[key]


def _hashes(record: AccountRecord) -> list[str]:
    return [key for key in (record.secret_hash, record.next_hash) if key]
