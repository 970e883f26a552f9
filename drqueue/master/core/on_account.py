"""What admins ask about accounts and lines. A mistake is an answer: Refused, which `on_client` answers."""

from ipaddress import ip_network
from typing import Final, cast

import msgspec
from msgspec import structs

from drqueue.master.core.accounts import NAME, end_tickets, revoke
from drqueue.master.core.on_join import approve
from drqueue.master.core.records import AccountRecord, LineRecord
from drqueue.master.core.register import ACCOUNTS_MOST, LINE_ID, LINES_MOST
from drqueue.master.core.rights import Refused
from drqueue.master.core.turn import Turn
from drqueue.master.core.wording import with_article
from drqueue.proto.lines import Line, secret_hash
from drqueue.proto.link_messages import NewSecret
from drqueue.proto.messages import (
    AccountRole,
    Accounts,
    AccountVerb,
    AddLine,
    Done,
    ListAccounts,
    Request,
    TheLine,
)
from drqueue.proto.roles import Role, Who
from drqueue.proto.views import AccountView

#: Seconds for which a line in place of an account is good.
ROTATE_S: Final = 3600.0
#: What a slave whose node was revoked is told.
_NODE_REVOKED: Final = (
    "an admin revoked this node's access: join again with a new line: drqueue-slave join LINE"
)
#: Bytes of an answer's accounts, and those that the shell may add to each: it knows people's links.
_PAGE_BYTES = 224 * 1024
_LINKED_BYTES = 64


def with_role(turn: Turn, request: AddLine) -> AddLine:
    """The same, with the role that the person has where none is said; whoever is new is an artist."""
    if request.role is not None or request.kind != "user":
        return request
    register = turn.state.register
    roles = [a.role for a in register.named("user", request.name)]
    roles += [line.role for line in register.lines_named("user", request.name)]
    return structs.replace(request, role=cast(AccountRole, roles[0]) if roles else "artist")


def add_line(turn: Turn, request: AddLine, who: Who, fresh: str) -> Request:
    """A line for a new node or person. For a person `role` is said: see `with_role`."""
    register = turn.state.register
    if request.name or request.kind == "user":
        _check_name(request.name)
    net = ""
    if request.net:
        try:
            net = str(ip_network(request.net, strict=False))
        except ValueError:
            raise Refused(
                "bad-net", f"{request.net[:60]!r} is no network: write it like 192.168.1.0/24"
            ) from None
    role: Role = "node" if request.kind == "node" else request.role or "artist"
    note = ""
    if request.kind == "user":
        note = _further(turn, request.name, role)
    if len(register.accounts) >= ACCOUNTS_MOST:
        raise Refused("too-many", f"this farm has {ACCOUNTS_MOST} accounts already: revoke some")
    line = LineRecord(
        token_hash=secret_hash(fresh),
        kind=request.kind,
        name=request.name,
        role=role,
        created_at=turn.wall,
        created_by=who.name,
        expires_at=turn.wall + request.ttl_s,
        uses_left=request.uses,
        net=net,
    )
    return _hand_out(turn, line, request, fresh, note)


def _further(turn: Turn, name: str, role: Role) -> str:
    """What is worth saying where this person has accounts; Refused where their role is another."""
    register = turn.state.register
    known = register.named("user", name)
    roles = [a.role for a in known] + [line.role for line in register.lines_named("user", name)]
    for other in roles:
        if other != role:
            raise Refused(
                "bad-role",
                f"{name} is {with_article(other)}: add them as such, "
                f"or change that first (drqueue user role {name} {role})",
            )
    if not known:
        return ""
    logins = "one login" if len(known) == 1 else f"{len(known)} logins"
    return f"{name} has {logins} already: this makes a further one of the same person, {with_article(role)}"


def _hand_out(turn: Turn, line: LineRecord, request: Request, fresh: str, note: str = "") -> TheLine:
    policy, register = turn.policy, turn.state.register
    if not policy.line_host:
        raise Refused(
            "not-listening",
            'the master does not listen on the network: set listen = "0.0.0.0:1234", '
            "or start it with --listen 0.0.0.0:1234",
        )
    if not fresh or line.token_hash in register.lines:
        raise Refused("no-token", "no token could be made for this line: ask again")
    if len(register.lines) >= LINES_MOST:
        raise Refused("too-many", f"there are {LINES_MOST} lines that nobody has used: revoke some")
    register.put_line(line, turn.state.save)
    text = Line(
        kind=line.kind, host=policy.line_host, port=policy.line_port, pin=policy.line_pin, token=fresh
    )
    note = "; ".join(part for part in (note, policy.line_note) if part)
    return TheLine(rq=request.rq, line=str(text), expires_at=line.expires_at, note=note)


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise Refused(
            "bad-name",
            f"{name[:70]!r} is no name: letters, digits and . _ -, the first a letter or digit, 63 at most",
        )


# -- looking ------------------------------------------------------------------------------------------------


def page_of_accounts(turn: Turn, request: ListAccounts) -> Accounts:
    """Accounts of a kind by name, with lines not used up; or those that wait."""
    register = turn.state.register
    if request.pending:
        views = [_account_view(turn, a) for a in register.pending.values() if a.kind == request.kind]
    else:
        views = [_account_view(turn, a) for a in register.accounts.values() if a.kind == request.kind]
        views += [_line_view(line) for line in register.lines.values() if line.kind == request.kind]
    views.sort(key=lambda view: (view.name, view.created_at, view.id))
    found: list[AccountView] = []
    room = _PAGE_BYTES
    for number, view in enumerate(views[request.cursor :], request.cursor):
        room -= len(msgspec.msgpack.encode(view)) + _LINKED_BYTES
        if len(found) == request.limit or (found and room < 0):
            return Accounts(rq=request.rq, accounts=tuple(found), next=number)
        found.append(view)
    return Accounts(rq=request.rq, accounts=tuple(found))


def _account_view(turn: Turn, account: AccountRecord) -> AccountView:
    slave = turn.state.bound.get(account.id)
    return AccountView(
        id=account.id,
        kind=account.kind,
        name=account.name,
        role=account.role,
        state="pending" if account.pending else "active",
        created_at=account.created_at,
        created_by=account.created_by,
        peer=account.peer,
        linked=slave is not None and slave.link is not None,
        slave=slave.name if slave is not None else "",
        code=account.code,
    )


def _line_view(line: LineRecord) -> AccountView:
    return AccountView(
        id=line.token_hash[:LINE_ID],
        kind=line.kind,
        name=line.name,
        role=line.role,
        state="line",
        created_at=line.created_at,
        created_by=line.created_by,
        expires_at=line.expires_at,
        uses_left=line.uses_left,
        net=line.net,
    )


# -- verbs --------------------------------------------------------------------------------------------------


def account_verb(turn: Turn, request: AccountVerb, who: Who, fresh: str) -> Request:
    """Do it; Done, or the line that somebody must paste."""
    match request.verb:
        case "revoke":
            return _revoke(turn, request)
        case "rotate":
            return _rotate(turn, request, who, fresh)
        case "approve":
            account = approve(turn, _pending(turn, request), who.name)
            note = f"node {account.name}" if account.name != request.name else ""
            return Done(rq=request.rq, count=1, note=note)
        case "reject":
            turn.state.register.reject(_pending(turn, request), turn.state.save)
            return Done(rq=request.rq, count=1)
        case "set-role":
            return _set_role(turn, request)


def _accounts(turn: Turn, request: AccountVerb) -> list[AccountRecord]:
    """All accounts of that name, or the one with that id."""
    register = turn.state.register
    found = register.named(request.kind, request.name)
    by_id = register.accounts.get(request.name)
    if not found and by_id is not None and by_id.kind == request.kind:
        found = [by_id]
    return found


def _nobody(request: AccountVerb) -> Refused:
    return Refused("no-such-account", f"there is no {request.kind} {request.name[:70]!r}")


def _pending(turn: Turn, request: AccountVerb) -> AccountRecord:
    """The one that waits: of that code, else of that id or name."""
    waiting = [a for a in turn.state.register.pending.values() if a.kind == request.kind]
    for found in (
        [a for a in waiting if a.code == request.name.upper()],
        [a for a in waiting if a.id == request.name],
        [a for a in waiting if a.name == request.name],
    ):
        if len(found) > 1:
            codes = ", ".join(a.code for a in found[:20])
            raise Refused(
                "ambiguous", f"{len(found)} nodes called {request.name} wait: say the code ({codes})"
            )
        if found:
            return found[0]
    raise Refused("no-such-account", f"no {request.kind} {request.name[:70]!r} waits to be approved")


def _revoke(turn: Turn, request: AccountVerb) -> Done:
    register = turn.state.register
    accounts = _accounts(turn, request)
    lines = register.lines_named(request.kind, request.name) if request.name else []
    if not accounts and not lines:
        lines = [
            line
            for line in register.lines.values()
            if line.kind == request.kind and line.token_hash[:LINE_ID] == request.name
        ]
    lines += [line for line in register.lines.values() if line.replaces in {a.id for a in accounts}]
    lines = list({line.token_hash: line for line in lines}.values())
    if not accounts and not lines:
        raise _nobody(request)
    for line in lines:
        register.drop_line(line, turn.state.save)
    notes = _slaves_of(turn, request, accounts)
    revoke(turn, accounts, _NODE_REVOKED if request.kind == "node" else "an admin revoked this access")
    if lines:
        notes.append(f"{_lines(len(lines))} not used yet went, too")
    if request.kind == "user":
        # Whoever may make lines has perhaps one put by.
        names = {request.name, *(account.name for account in accounts)}
        made = sum(line.created_by in names for line in register.lines.values())
        if made:
            notes.append(f"{_lines(made)} that they made for others stayed (drqueue user list, node list)")
        notes += _jobs_of(turn, {account.name for account in accounts})
    return Done(rq=request.rq, count=len(accounts), note="; ".join(notes))


def _slaves_of(turn: Turn, request: AccountVerb, accounts: list[AccountRecord]) -> list[str]:
    """What is to be said of slaves that are called otherwise than their nodes."""
    notes = []
    ids = {account.id for account in accounts}
    for account in accounts:
        slave = turn.state.bound.get(account.id)
        if slave is not None and slave.name != account.name:
            notes.append(f"its slave is called {slave.name}")
    for number, slave in turn.state.bound.items():
        other = turn.state.register.accounts.get(number)
        if slave.name == request.name and other is not None and number not in ids:
            notes.append(f"the slave called {slave.name} is another's, of node {other.name}, which stays")
    return notes


def _jobs_of(turn: Turn, names: set[str]) -> list[str]:
    """What is to be said of jobs of those who have no account any more."""
    gone = {name for name in names if not turn.state.register.named("user", name)}
    count = sum(
        job.submitter in gone and not job.finished and not job.deleted for job in turn.state.jobs.values()
    )
    jobs = "job is" if count == 1 else "jobs are"
    return [f"{count} of their {jobs} not finished and go{'es' if count == 1 else ''} on"] if count else []


def _lines(count: int) -> str:
    return f"{count} line{'s' if count > 1 else ''}"


def _rotate(turn: Turn, request: AccountVerb, who: Who, fresh: str) -> Request:
    found = _accounts(turn, request)
    if not found:
        raise _nobody(request)
    if len(found) > 1:
        ids = ", ".join(a.id for a in found[:20])
        raise Refused("ambiguous", f"{request.name} has {len(found)} logins: say which by its id ({ids})")
    (account,) = found
    slave = turn.state.bound.get(account.id)
    if slave is not None and slave.link is not None:
        if account.next_hash:
            # Whatever became of the one before.
            turn.state.register.put(structs.replace(account, next_hash=""), turn.state.save)
        turn.tell(slave.link, NewSecret())
        return Done(rq=request.rq, count=1, note=f"slave {slave.name} makes itself a new secret")
    line = LineRecord(
        token_hash=secret_hash(fresh),
        kind=account.kind,
        name=account.name,
        role=account.role,
        created_at=turn.wall,
        created_by=who.name,
        expires_at=turn.wall + ROTATE_S,
        uses_left=1,
        replaces=account.id,
    )
    return _hand_out(turn, line, request, fresh, "the old secret is good until this line is used")


def _set_role(turn: Turn, request: AccountVerb) -> Done:
    """A person has one role, wherever they log in; links that stand go, since they began with another."""
    if request.kind != "user":
        raise Refused("bad-role", "only people have roles that can be set")
    register, save = turn.state.register, turn.state.save
    found = _accounts(turn, request)
    unused = register.lines_named("user", request.name)
    if not found and not unused:
        raise _nobody(request)
    name = found[0].name if found else request.name
    count = 0
    changed = set()
    for account in register.named("user", name):
        count += 1
        if account.role != request.role:
            register.put(structs.replace(account, role=request.role), save)
            changed.add(account.id)
    for line in register.lines_named("user", name):
        register.put_line(structs.replace(line, role=request.role), save)
    if changed:
        turn.cut(changed, f"your role is {request.role} now: link again")
        end_tickets(turn)
    note = ""
    if not found:
        are = "is" if len(unused) == 1 else "are"
        role = with_article(request.role)
        note = f"nobody has joined as {name} yet: {_lines(len(unused))} not used so far {are} now for {role}"
    return Done(rq=request.rq, count=count, note=note)
