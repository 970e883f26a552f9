"""Who is at the other end of a link: judged from its first words and from how it came.

Rules: on a Unix socket the kernel says who called, and nothing that the caller says counts; everywhere else a
secret does. Who may come in is decided here, what they may do is not. A secret is hashed and forgotten: it is
never logged, and no event holds it. Whoever is turned away is told why, and so is the audit.
"""

import os
import pwd
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import NamedTuple

import trio
from msgspec import structs

from drqueue import tls
from drqueue.channel import Channel
from drqueue.engine import Inbox
from drqueue.master.certificate import make_certificate
from drqueue.master.core.effects import AnswerJoin
from drqueue.master.core.events import Event, JoinAsked, Noticed, SecretShown
from drqueue.master.core.register import Register
from drqueue.master.gate import Caller
from drqueue.proto import lines
from drqueue.proto.handshake import Answerer
from drqueue.proto.link_messages import Hi, Join, Joined, Message, Rejected
from drqueue.proto.roles import PEOPLE, Role, Who

#: Seconds for which a user id's login name is believed, and how many are remembered.
_NAMES_S = 60.0
_NAMES_MOST = 1000
#: Names looked up at once.
_LOOKING_MOST = 4
#: How many user ids there are.
_UIDS = 2**32 - 1
#: Certificates made at once: a farm's nodes may well join all together.
_MAKING_MOST = 2


class Entered(NamedTuple):
    """A link that was let in: its first words, and whose it is."""

    hi: Hi
    who: Who


class _NotIn(Exception):  # noqa: N818  (an answer on its way)
    """Turned away: code, sentence, and who it was as far as is known; `retry`: later may be better."""

    def __init__(self, who: Who, code: str, text: str, *, retry: bool = False) -> None:
        super().__init__(text)
        self.who = who
        self.code = code
        self.retry = retry


class Door:
    """Judges first messages. `register` is the core's, for reading."""

    def __init__(
        self,
        answerer: Answerer,
        register: Callable[[], Register],
        inbox: Inbox[Event],
        roles: Sequence[str],
    ) -> None:
        self._answerer = answerer
        self._register = register
        self._inbox = inbox
        self._roles = local_roles(roles)
        self._names: dict[int, tuple[str, float]] = {}
        #: Whatever name services do, these two come in.
        self._own = {uid: login_name(uid) for uid in (0, os.geteuid())}
        self._unmapped = unmapped_uid()
        self._looking = trio.CapacityLimiter(_LOOKING_MOST)
        self._joins: dict[int, trio.MemorySendChannel[Joined | Rejected]] = {}
        self._numbers = count(1)
        self._making = trio.CapacityLimiter(_MAKING_MOST)

    # -- Hi -------------------------------------------------------------------------------------------

    async def enter(self, channel: Channel, message: Message, caller: Caller) -> Entered | None:
        """Answer a first message that is no Join; None where it was turned away. RemoteProtocolError."""
        hi, reply = self._answerer.greeted(message)
        if hi is None or isinstance(reply, Rejected):
            # Of another protocol: told so before it is asked who it is, which it may say in other words.
            channel.greet(self._answerer, message)
            if isinstance(reply, Rejected):
                self._notice(_stranger(caller), "link", reply.code, reply.text)
            return None
        try:
            if caller.kind == "unix":
                who = self._local(hi, caller, await self._login_name(caller.uid))
            else:
                who = self._remote(hi, caller)
        except _NotIn as error:
            self._notice(error.who, f"link as a {hi.role}", error.code, str(error))
            channel.refuse(error.code, str(error), retry=error.retry)
            return None
        channel.greet(self._answerer, message)
        return Entered(structs.replace(hi, secret="", ticket=b""), who)

    def _local(self, hi: Hi, caller: Caller, name: str) -> Who:
        """Somebody on the Unix socket: root and the master's own user are admins, others as was set."""
        if caller.uid == self._unmapped:
            text = "nobody can tell who calls: your user id is not known where the master runs"
            raise _NotIn(_stranger(caller), "not-allowed", text)
        own = caller.uid in (0, os.geteuid())
        role: Role = self._roles.get(name) or self._roles.get(str(caller.uid)) or "artist"
        who = Who(name=name, role="admin" if own else role, peer=caller.address)
        if hi.role == "slave":
            if not own and role != "node":
                text = f"{name} may run no slave over this socket: join it with a line, or set local_roles"
                raise _NotIn(who, "not-allowed", text)
            return structs.replace(who, role="node")
        if who.role == "node":
            raise _NotIn(who, "not-allowed", f"{name} may run a slave here, and nothing else (local_roles)")
        return who

    def _remote(self, hi: Hi, caller: Caller) -> Who:
        """Somebody on the network: whose account's secret they show."""
        stranger = _stranger(caller)
        if not hi.secret:
            how = "join with a line" if hi.role == "slave" else "log in with a line of an admin's"
            raise _NotIn(stranger, "no-account", f"this port is for those who have an account: {how}")
        shown = lines.secret_hash(hi.secret)
        account = self._register().with_hash(shown)
        if account is None:
            text = "this master knows no such account: it was revoked, or is of another farm"
            if hi.role == "slave":
                text += "; join with a new line: drqueue-slave join LINE"
            raise _NotIn(stranger, "no-account", text)
        who = Who(name=account.name, role=account.role, account=account.id, peer=caller.address)
        if account.pending:
            text = f"node {account.name} waits to be approved (code {account.code})"
            raise _NotIn(structs.replace(who, account=""), "not-allowed", text, retry=True)
        if hi.role == "client" and account.kind == "node":
            text = f"this is the secret of node {account.name}: it opens a slave's link and nothing else"
            raise _NotIn(who, "not-allowed", text)
        if hi.role == "slave" and account.kind != "node":
            text = (
                f"this is the secret of {account.name}, who is no node: join the slave with a line for nodes"
            )
            raise _NotIn(who, "not-allowed", text)
        if shown == account.next_hash:
            self._inbox.put(SecretShown(account.id, shown))
        return who

    def _notice(self, who: Who, what: str, code: str, text: str) -> None:
        # Whoever is turned away waits for nobody, and may be back at once.
        self._inbox.put_if_room(Noticed(who, what, code, text))

    async def _login_name(self, uid: int) -> str:
        if uid in self._own:
            return self._own[uid]
        known = self._names.get(uid)
        if known is not None and known[1] > trio.current_time():
            return known[0]
        # A name service may be somewhere on the network, and slow, or never answer.
        name = await trio.to_thread.run_sync(login_name, uid, limiter=self._looking, abandon_on_cancel=True)
        if len(self._names) >= _NAMES_MOST:
            self._names.clear()
        self._names[uid] = name, trio.current_time() + _NAMES_S
        return name

    # -- Join -----------------------------------------------------------------------------------------

    async def join(self, channel: Channel, join: Join, caller: Caller) -> bool:
        """Answer who asks for an account; whether nothing was wrong about it (to have to wait is not)."""
        if caller.kind == "unix":
            text = "nobody joins over this socket: it knows who calls; dial the master's port"
            self._notice(_stranger(caller), "join", "not-allowed", text)
            channel.refuse("not-allowed", text, retry=False)
            return False
        answer = await self._asked(join, caller)
        if isinstance(answer, Joined) and join.role == "slave":
            # Only now: whoever has proven nothing shall not keep this machine busy.
            certificate, key = await trio.to_thread.run_sync(
                make_certificate, answer.name, limiter=self._making
            )
            answer = await self._asked(join, caller, tls.pin_of_pem(certificate))
            if isinstance(answer, Joined):
                answer = structs.replace(answer, certificate=certificate, key=key)
        if isinstance(answer, Rejected):
            channel.refuse(answer.code, answer.text, retry=answer.retry)
            return answer.code in ("pending", "busy")
        channel.send(answer)
        return True

    async def _asked(self, join: Join, caller: Caller, pin: str = "") -> Joined | Rejected:
        number = next(self._numbers)
        sender, receiver = trio.open_memory_channel[Joined | Rejected](1)
        self._joins[number] = sender
        try:
            if not self._inbox.put_if_room(JoinAsked(number, join, caller.address, pin)):
                return Rejected(code="busy", text="the master is too busy to answer: try again", retry=True)
            return await receiver.receive()
        finally:
            del self._joins[number]

    def answer_join(self, effect: AnswerJoin) -> None:
        """The core's answer, for whoever still waits for it."""
        sender = self._joins.get(effect.link)
        if sender is not None:
            sender.send_nowait(effect.message)


def _stranger(caller: Caller) -> Who:
    """Somebody of whom no more is known than where they are."""
    return Who(name="", role="viewer", peer=caller.address)


def login_name(uid: int) -> str:
    """The login name of a user id, "uid N" without an entry. May ask a name service, and wait for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def unmapped_uid(proc: str = "/proc") -> int:
    """The user id that stands for everybody who has none in this process's user namespace; -1: all have one.

    Whoever has that very id here, the master itself perhaps, cannot be told from them.
    """
    try:
        with open(f"{proc}/self/uid_map", encoding="ascii") as file:
            known = sum(int(line.split()[2]) for line in file)
        with open(f"{proc}/sys/kernel/overflowuid", encoding="ascii") as file:
            return int(file.read()) if known < _UIDS else -1
    except OSError:
        return -1


def local_roles(entries: Sequence[str]) -> Mapping[str, Role]:
    """The setting `local_roles` as a table of login names and user ids."""
    roles: dict[str, Role] = {}
    for entry in entries:
        name, _, role = entry.partition("=")
        roles[name] = next(known for known in (*PEOPLE, "node") if known == role)
    return roles
