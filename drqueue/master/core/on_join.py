"""Who asks for an account: with a line's token it is made at once, a node without one waits to be approved.

Rules: whoever asks has proven nothing, so what they say is bounded, tidied and counted; asking again with the
same hash changes nothing; no token and no secret is kept. Who was approved may ask again until their slave
has linked.
"""

from ipaddress import ip_network

from msgspec import structs

from drqueue.master.core.accounts import free_name, host_of, replace, tidy_name
from drqueue.master.core.events import JoinAsked
from drqueue.master.core.records import AccountRecord, LineRecord
from drqueue.master.core.register import ACCOUNTS_MOST, PENDING_MOST
from drqueue.master.core.rights import Refused
from drqueue.master.core.turn import Turn
from drqueue.proto.lines import account_id, approval_code, secret_hash
from drqueue.proto.link_messages import Join, Joined, Rejected
from drqueue.proto.messages import AccountKind
from drqueue.proto.roles import Who

#: Accounts that may wait to be approved at one address.
_PENDING_AT_ONE = 50
#: Characters kept of what a slave says of itself.
_SAID_MOST = 200
#: What may be otherwise later.
_RETRY = ("pending", "too-many")


def on_join(turn: Turn, event: JoinAsked) -> None:
    """Answer whoever asks."""
    join = event.join
    try:
        account = _account(turn, event)
    except Refused as error:
        if error.code != "pending":
            # People do not say what they are called: their line does.
            what = f"join as {_kind(join)}{f' {tidy_name(join.name)}' if join.name else ''}"
            turn.noticed(_stranger(event), what, error.code, str(error))
        turn.answer_join(event.link, Rejected(code=error.code, text=str(error), retry=error.code in _RETRY))
        return
    turn.answer_join(
        event.link, Joined(farm=turn.policy.farm, account=account.id, name=account.name, role=account.role)
    )


def _account(turn: Turn, event: JoinAsked) -> AccountRecord:
    join, register = event.join, turn.state.register
    known = register.with_hash(join.secret_hash)
    token = secret_hash(join.token) if join.token else ""
    if known is not None and known.kind != _kind(join):
        raise Refused("wrong-line", f"this is the secret of a {known.kind}")
    if known is not None and not known.pending:
        return _again(turn, event, known, token)
    if not token:
        return _wait(turn, event, known)
    line = _line(turn, event, token)
    name = line.name or tidy_name(join.name)
    record = structs.replace(_record(turn, event, name), role=line.role, line=token)
    by = f"with a line of {line.created_by}"
    _take_places(turn, record, register.accounts.get(line.replaces))
    record = structs.replace(record, name=free_name(turn, line.kind, name), created_by=line.created_by)
    register.put(record, turn.state.save)
    register.use_line(line, turn.state.save)
    turn.did(
        Who(name=record.name, role=record.role, peer=event.peer), f"{line.kind} {record.name}: join, {by}"
    )
    return record


def _again(turn: Turn, event: JoinAsked, known: AccountRecord, token: str) -> AccountRecord:
    """Whoever has the account asks once more: with what they came with, or with a new line."""
    register, save = turn.state.register, turn.state.save
    changed = known
    if not token and known.id in turn.state.bound:
        # The hash proves nothing: backups of the database hold it, and a certificate's pin would be theirs.
        raise Refused("no-line", "this node is in already, by its secret: it takes a line to join it anew")
    if known.line != token:
        line = _line(turn, event, token)
        if line.name not in ("", known.name) or line.replaces:
            raise Refused("wrong-line", "this line is for somebody else")
        register.use_line(line, save)
        changed = structs.replace(known, line=token)
    if event.pin:
        changed = structs.replace(changed, pin=event.pin)
    if changed != known:
        register.put(changed, save)
    return changed


def _line(turn: Turn, event: JoinAsked, token: str) -> LineRecord:
    """The line with this token, where it is good for whoever asks."""
    line = turn.state.register.lines.get(token)
    if line is None:
        raise Refused("bad-line", "this line is not, or no longer, good: ask an admin for a new one")
    if line.expires_at < turn.wall:
        raise Refused("bad-line", "this line is too old: ask an admin for a new one")
    if line.kind != _kind(event.join):
        raise Refused("wrong-line", f"this line is for a {line.kind}")
    host = host_of(event.peer)
    if line.net and (host is None or host not in ip_network(line.net)):
        raise Refused("wrong-net", f"this line may be used from {line.net} only, this is {event.peer}")
    if len(turn.state.register.accounts) >= ACCOUNTS_MOST:
        raise Refused("too-many", f"this farm has {ACCOUNTS_MOST} accounts already: revoke some")
    return line


def _wait(turn: Turn, event: JoinAsked, known: AccountRecord | None) -> AccountRecord:
    """A node without a line: it waits."""
    join, register = event.join, turn.state.register
    if join.role != "slave":
        raise Refused("no-line", "people join with a line: an admin makes one with drqueue user add NAME")
    if join.secret_hash in register.rejected:
        raise Refused("rejected", "an admin rejected this node")
    if known is None:
        host = host_of(event.peer)
        same = sum(host_of(account.peer) == host for account in register.pending.values())
        if same >= _PENDING_AT_ONE or len(register.pending) >= PENDING_MOST:
            raise Refused("too-many", "too many nodes wait to be approved already")
        name = tidy_name(join.name)
        known = structs.replace(
            _record(turn, event, name),
            pending=True,
            code=approval_code(turn.policy.line_pin, join.secret_hash),
        )
        register.put(known, turn.state.save)
        turn.noticed(_stranger(event), f"node {name} asks to be approved", "pending", known.code)
    raise Refused("pending", f"an admin must approve this node: drqueue node approve {known.code}")


def approve(turn: Turn, waiting: AccountRecord, by: str) -> AccountRecord:
    """It waits no more; its account."""
    register = turn.state.register
    _take_places(turn, waiting, None)
    name = free_name(turn, "node", waiting.name)
    record = structs.replace(waiting, pending=False, name=name, created_by=by, code="")
    register.put(record, turn.state.save)
    return record


def _take_places(turn: Turn, record: AccountRecord, replaced: AccountRecord | None) -> None:
    """End the accounts in whose places this one comes: the line's, and that of the same slave."""
    if replaced is not None:
        replace(turn, replaced, record)
    if record.kind != "node" or not record.identity or not record.fingerprint:
        return
    same = [
        account
        for account in turn.state.register.accounts.values()
        if (account.identity, account.fingerprint) == (record.identity, record.fingerprint)
    ]
    for account in same:
        replace(turn, account, record)


def _record(turn: Turn, event: JoinAsked, name: str) -> AccountRecord:
    join = event.join
    number = account_id(join.secret_hash)
    register = turn.state.register
    taken = register.accounts.get(number) or register.pending.get(number)
    if taken is not None and taken.secret_hash != join.secret_hash:
        raise Refused("bad-secret", "another account has this number: try again with another secret")
    return AccountRecord(
        id=number,
        kind=_kind(join),
        name=name,
        role="node",
        secret_hash=join.secret_hash,
        created_at=turn.wall,
        created_by="",
        pin=event.pin,
        peer=event.peer[:_SAID_MOST],
        identity=join.identity[:_SAID_MOST],
        fingerprint=join.fingerprint[:_SAID_MOST],
    )


def _kind(join: Join) -> AccountKind:
    return "node" if join.role == "slave" else "user"


def _stranger(event: JoinAsked) -> Who:
    """Whoever asks, without a name: they have proven none. Their ports are all the same to the audit."""
    host = host_of(event.peer)
    return Who(name="", role="node", peer=event.peer if host is None else str(host))
