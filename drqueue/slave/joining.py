"""How a slave gets into a farm: by a line, or by asking until somebody there approves it.

Rules: the secret is on the disk before its hash is sent, so that whatever breaks off may be done again: the
command goes on where it stopped, and so does the daemon. One of them asks at a time. A farm that shows
another certificate than the one first seen is told nothing. Secrets and tokens are neither logged nor quoted.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

import trio
from msgspec import structs

from drqueue import log
from drqueue.access import Access, AccessError, came_by, read_access
from drqueue.address import Address
from drqueue.channel import HANDSHAKE_S, LinkClosed
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.handshake import HandshakeRejected
from drqueue.proto.lines import Line, approval_code, secret_hash
from drqueue.proto.link_messages import Join, Joined, Rejected
from drqueue.slave.credentials import (
    Joining,
    access_file,
    drop_joining,
    joining_lock,
    keep_joined,
    new_secret,
    read_joining,
    write_joining,
)

#: Exit statuses of the command.
FAILED, REFUSED, UNREACHABLE = 1, 3, 69
#: Pause between two questions of the command, and of the daemon.
ASK_S, DAEMON_ASKS_S = 3.0, 5.0
#: Another process that asks gets so long to finish.
_OTHER_S = 15.0
PENDING = "pending"


class Introduction(NamedTuple):
    """Who asks."""

    identity: str
    fingerprint: str
    name: str
    software: str


class JoinFailed(Exception):  # noqa: N818  (what came of it)
    """It did not come to a join: one sentence, and the exit status of the command."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def code_of(joining: Joining) -> str:
    """What is shown here, and by `drqueue node pending` where nobody sits between."""
    return approval_code(joining.pin, secret_hash(joining.secret))


async def ask(state_dir: str, joining: Joining, who: Introduction) -> Access:
    """Ask once; keep the way in, if it is given.

    Raises PinMismatch and OSError where nothing was said; HandshakeRejected, LinkClosed, RemoteProtocolError;
    AccessError.
    """
    from drqueue.dialling import open_channel  # most slaves have joined, or need not

    channel = await open_channel(joining.address, pin=joining.pin, label="master")
    async with channel:
        channel.send(
            Join(
                role="slave",
                secret_hash=secret_hash(joining.secret),
                token=joining.token,
                name=who.name,
                identity=who.identity,
                fingerprint=who.fingerprint,
                software=who.software,
            )
        )
        with trio.move_on_after(HANDSHAKE_S) as patience:
            answer = await channel.receive()
        if patience.cancelled_caught:
            raise RemoteProtocolError(f"silent for {HANDSHAKE_S:.0f} s")
    if isinstance(answer, Rejected):
        raise HandshakeRejected(answer.code, answer.text, answer.retry)
    if not isinstance(answer, Joined):
        raise RemoteProtocolError(f"expected Joined, got {type(answer).__name__}")
    return keep_joined(state_dir, joining, answer)


# -- the command ------------------------------------------------------------------------------------------


async def join(
    state_dir: str,
    target: Line | Address,
    who: Introduction,
    say: Callable[[str], None],
    *,
    ask_s: float = ASK_S,
    other_s: float = _OTHER_S,
) -> Access:
    """Join by a line, or by asking at an address until that is approved. Raises JoinFailed."""
    deadline = trio.current_time() + other_s
    while True:
        try:
            with joining_lock(state_dir) as mine:
                if mine:
                    return await _Command(state_dir, target, who, say, ask_s).run()
        except AccessError as error:
            raise JoinFailed(str(error), FAILED) from None
        if trio.current_time() >= deadline:
            raise JoinFailed(f"another `drqueue-slave join` is at work in {state_dir}", FAILED)
        await trio.sleep(0.1)


class _Command:
    def __init__(
        self,
        state_dir: str,
        target: Line | Address,
        who: Introduction,
        say: Callable[[str], None],
        ask_s: float,
    ) -> None:
        self._state_dir = state_dir
        self._target = target
        self._who = who
        self._say = say
        self._ask_s = ask_s
        self._said = ""

    async def run(self) -> Access:
        """Ask until there is an answer. Raises JoinFailed, AccessError."""
        joining, resumed = await self._joining()
        if not resumed:
            write_joining(self._state_dir, joining)
        while True:
            try:
                return await self._ask(joining, resumed)
            except JoinFailed as failure:
                # Whoever waits to be approved waits for a master that restarts, too.
                if joining.token or not resumed or failure.status != UNREACHABLE:
                    raise
                self._say_once(f"{failure}; asking again")
            except HandshakeRejected as no:
                if no.code == PENDING:
                    self._say_once(
                        f"waiting to be approved at {joining.address}: if `drqueue node pending` shows"
                        f"\nthe same code there, run:  drqueue node approve {code_of(joining)}"
                    )
                else:
                    self._say_once(f"{joining.address}: {_one_line(no.text)}; asking again")
            resumed = True
            await trio.sleep(self._ask_s)

    async def _ask(self, joining: Joining, resumed: bool) -> Access:
        from drqueue.tls import PinMismatch

        address = joining.address
        try:
            return await ask(self._state_dir, joining, self._who)
        except HandshakeRejected as no:
            if no.code == PENDING or (no.retry and not joining.token):
                raise
            if no.retry:
                raise JoinFailed(f"{address}: {_one_line(no.text)}; try again later", UNREACHABLE) from None
            drop_joining(self._state_dir)
            text = f"{address} refuses: {_one_line(no.text)}{self._came_before()}"
            raise JoinFailed(text, REFUSED) from None
        except PinMismatch as error:
            self._forget_unsaid(resumed)
            raise JoinFailed(str(error), REFUSED) from None
        except OSError as error:
            self._forget_unsaid(resumed)
            text = _unreachable(address, error)
            if joining.token:
                text += "; if the farm has another address, its admin sets `address`"
            raise JoinFailed(text, UNREACHABLE) from None
        except (LinkClosed, RemoteProtocolError) as error:
            raise JoinFailed(f"{address} did not answer: {error}; try again", UNREACHABLE) from None

    def _forget_unsaid(self, resumed: bool) -> None:
        """Nobody heard of this secret, unless an earlier try was cut off."""
        if not resumed:
            drop_joining(self._state_dir)

    async def _joining(self) -> tuple[Joining, bool]:
        """What to ask with, and whether it is what an earlier try asked with."""
        try:
            kept = read_joining(self._state_dir)
        except AccessError:
            kept = None  # replaced by what is asked for now
        if kept is not None and (kept.refused or kept.address != _address(self._target)):
            kept = None
        target = self._target
        if isinstance(target, Line):
            if kept is not None and (kept.pin, kept.token) == (target.pin, target.token):
                return kept, True
            return Joining(
                host=target.host, port=target.port, pin=target.pin, secret=new_secret(), token=target.token
            ), False
        if kept is not None and not kept.token:
            return kept, True
        pin = await self._first_use(target)
        return Joining(host=target.host, port=target.port, pin=pin, secret=new_secret()), False

    async def _first_use(self, address: Address) -> str:
        """The pin of whoever is there."""
        from drqueue.dialling import open_unproven

        try:
            channel, pin = await open_unproven(address)
        except OSError as error:
            raise JoinFailed(_unreachable(address, error), UNREACHABLE) from None
        channel.close()
        return pin

    def _came_before(self) -> str:
        """A word on a line that this very slave used up."""
        try:
            ways = read_access(access_file(self._state_dir))
        except AccessError:
            return ""
        target = self._target
        former = came_by(ways, target.pin, target.token) if isinstance(target, Line) else None
        return "" if former is None else f" (this slave came in by it before, as {former.name})"

    def _say_once(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._say(text)


def _address(target: Line | Address) -> Address:
    return target if isinstance(target, Address) else Address("tcp", host=target.host, port=target.port)


def _one_line(text: str) -> str:
    """What a master says cannot pass for lines of the command's own."""
    return " ".join(text.split())


def _unreachable(address: Address, error: OSError) -> str:
    return f"no master answers at {address}: {error.strerror or error}"


# -- the daemon -------------------------------------------------------------------------------------------


class Joiner:
    """Goes on with what the command, or a cloned disk, began, while the daemon runs."""

    def __init__(
        self, state_dir: str, who: Callable[[], Introduction], rng: Callable[[], float] = random.random
    ) -> None:
        self._state_dir = state_dir
        self._who = who
        self._rng = rng
        self._said = ""

    async def run(self) -> None:
        """Look now and then whether there is something to ask, until cancelled."""
        while True:
            await self.look()
            # Jitter: all nodes of one image wait to be approved since the same moment.
            await trio.sleep(DAEMON_ASKS_S * (0.5 + self._rng()))

    async def look(self) -> None:
        """Ask once where something is to be asked for, and nobody else does."""
        try:
            if read_joining(self._state_dir) is None:
                return
            with joining_lock(self._state_dir) as mine:
                joining = read_joining(self._state_dir) if mine else None
                if joining is not None and not joining.refused:
                    await self._ask(joining)
        except AccessError as error:
            self._say(str(error))

    async def _ask(self, joining: Joining) -> None:
        from drqueue.tls import PinMismatch

        address = joining.address
        try:
            way = await ask(self._state_dir, joining, self._who())
        except HandshakeRejected as no:
            if no.code == PENDING:
                self._say(
                    f"waits to be approved at its farm: drqueue node approve {code_of(joining)}", address
                )
            elif no.retry:
                self._say(f"the farm does not take this slave on now: {no.text}", address)
            else:
                write_joining(self._state_dir, structs.replace(joining, refused=True))
                self._say(
                    f"the farm refuses this slave: {no.text}; drqueue-slave join LINE asks anew", address
                )
        except PinMismatch as error:
            self._say(str(error), address)
        except OSError as error:
            self._say(f"the farm to join does not answer: {error.strerror or error}", address)
        except (LinkClosed, RemoteProtocolError) as error:
            self._say(f"the farm to join did not answer: {error}", address)
        else:
            log.event("joined a farm", address=address, name=way.name, account=way.account)

    def _say(self, text: str, address: Address | None = None) -> None:
        if text != self._said:
            self._said = text
            log.warning(text, **({} if address is None else {"address": address}))
