"""Rows of accounts, lines and the audit, as tests of storages need them."""

from msgspec.structs import replace

from drqueue.master.core.records import AccountRecord, AuditRecord, LineRecord


def account(number: str, **more: object) -> AccountRecord:
    row = AccountRecord(
        id=number,
        kind="node",
        name="n1",
        role="node",
        secret_hash=f"hash {number}",
        created_at=7,
        created_by="root",
        peer="192.0.2.1",
    )
    return replace(row, **more)


def line(token_hash: str, **more: object) -> LineRecord:
    row = LineRecord(
        token_hash=token_hash,
        kind="user",
        name="anna",
        role="artist",
        created_at=7,
        created_by="root",
        expires_at=9,
        uses_left=2,
    )
    return replace(row, **more)


def audit(number: int, **more: object) -> AuditRecord:
    row = AuditRecord(
        id=number,
        at=100 + number,
        who="anna",
        role="artist",
        peer="uid 1000",
        what="stop job 1",
        outcome="done",
    )
    return replace(row, **more)
