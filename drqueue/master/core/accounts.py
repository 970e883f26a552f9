"""What becomes of accounts: how they come to be called, and what ends with them.

Rules: names of nodes are unique, a person's is theirs wherever they log in; where an account goes, every link
that showed its secret is cut in the same step, and tickets that a person may hold open nothing any more.
"""

import re
from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from msgspec import structs

from drqueue.master.core.on_slave import cut_off
from drqueue.master.core.records import AccountRecord, LineRecord
from drqueue.master.core.turn import Turn
from drqueue.proto.messages import AccountKind
from drqueue.proto.roles import Who

#: What nodes and people may be called.
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
#: Who restores a backup, and ends what it brought back.
THE_MASTER: Final = Who(name="the master", role="admin")
#: Seconds for which those that ask to be approved are kept.
PENDING_S: Final = 86400.0


def revoke(turn: Turn, accounts: Sequence[AccountRecord], why: str) -> None:
    """Their secrets open nothing any more, and what they opened is cut."""
    people = {account.id for account in accounts if account.kind == "user"}
    for account in accounts:
        turn.state.register.drop(account, turn.state.save)
        slave = turn.state.bound.get(account.id)
        if slave is not None:
            turn.state.bind(slave, "")
            cut_off(turn, slave, "revoked", why)
    turn.cut(people, why)
    if people:
        end_tickets(turn)


def end_gone(turn: Turn, gone: Collection[str]) -> None:
    """End accounts that were ended before, and came back with a backup of the database."""
    accounts = turn.state.register.accounts
    found = [accounts[number] for number in gone if number in accounts]
    for account in found:
        revoke(turn, [account], "this access was revoked")
        what = f"{account.kind} {account.name}: revoke"
        turn.did(THE_MASTER, what, f"it was gone before a backup brought {account.id} back")


def end_tickets(turn: Turn) -> None:
    """No ticket that was handed out so far opens anything any more."""
    for slave in turn.state.slaves.values():
        slave.ends_tickets = True
        turn.ticket_key(slave)


def replace(turn: Turn, old: AccountRecord, new: AccountRecord) -> None:
    """One node's, or person's, account takes the place of another, which ends; a node keeps its slave."""
    slave = turn.state.bound.get(old.id)
    revoke(turn, [old], f"{old.kind} {old.name} came with a new secret, which this link did not show")
    if slave is not None:
        turn.state.bind(slave, new.id)


def free_name(turn: Turn, kind: AccountKind, wanted: str) -> str:
    """What an account is called: a node by a name that no other has, from -2; a person as they are."""
    if kind == "user":
        return wanted
    taken = {account.name for account in turn.state.register.accounts.values() if account.kind == kind}
    if wanted not in taken:
        return wanted
    number = 2
    while (name := f"{wanted[:55]}-{number}") in taken:
        number += 1
    return name


def tidy_name(text: str) -> str:
    """What somebody says that they are called, as a name; "node" where nothing is left of it."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text[:200]).lstrip("-._")[:63]
    return name or "node"


def drop_old(turn: Turn) -> None:
    """Drop lines that are past their time, and those that waited too long to be approved.

    Whatever the wall clock says, by which they may be good no longer: it may be set right again.
    """
    register, save = turn.state.register, turn.state.save
    for record in list(register.expired(turn.state.dates.today(turn.now), PENDING_S)):
        if isinstance(record, LineRecord):
            register.drop_line(record, save)
        else:
            register.drop(record, save)


def show_secret(turn: Turn, account: str, secret_hash: str) -> None:
    """A secret was shown: where it is the next one, the old one, and the link that it opened, end."""
    found = turn.state.register.accounts.get(account)
    if found is not None and secret_hash and found.next_hash == secret_hash:
        changed = structs.replace(found, secret_hash=secret_hash, next_hash="")
        turn.state.register.put(changed, turn.state.save)
        slave = turn.state.bound.get(account)
        if slave is not None:
            cut_off(turn, slave, "new-secret", "a newer secret was shown than this link's", retry=True)


def host_of(peer: str) -> IPv4Address | IPv6Address | None:
    """The address in what a link says of its other end; None on a Unix socket."""
    text = peer.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
