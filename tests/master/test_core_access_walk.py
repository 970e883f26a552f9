"""Nodes, people and admins do anything in any order: what must hold holds, and a restart changes nothing.

The farm checks the core's invariants after every step; besides, whoever was revoked opens nothing.
"""

from random import Random

import pytest

from drqueue.proto.link_messages import Joined, SecretTaken
from drqueue.proto.messages import TheLine
from drqueue.proto.roles import Who
from tests.builders import LOCAL_NODE
from tests.master.access import AccessFarm, hash_of, token

VERBS = ("revoke", "rotate", "approve", "reject", "set-role")
ACTIONS = {"line": 3, "join": 6, "link": 6, "unlink": 3, "verb": 4, "secret": 2, "wait": 1, "restart": 1}
STEPS = 80


class Walk:
    """A farm and what a walk over it has come by so far."""

    def __init__(self) -> None:
        self.farm = AccessFarm()
        self.tokens = [""]
        self.links: list[int] = []
        self.revoked: set[str] = set()

    def line(self, kind: str, uses: int, named: bool) -> None:
        """A line for a node or a person."""
        name = "ada" if kind == "user" else "n0" if named else ""
        role = self.role() if kind == "user" else "artist"
        self.tokens.append(self.farm.add_line(kind=kind, name=name, uses=uses + 1, role=role, ttl_s=5000))

    def role(self) -> str:
        """The role that the one person has, or will have."""
        register = self.farm.core.state.register
        known = [account.role for account in register.named("user", "ada")]
        return (known + [line.role for line in register.lines_named("user", "ada")] + ["artist"])[0]

    def join(self, one: int, two: int, fingerprint: str) -> None:
        """Secret `one` joins with token `two`, perhaps as a person."""
        role = "client" if one == 3 else "slave"
        made = self.tokens[-1 - two % len(self.tokens)]
        answer = self.farm.tries(
            f"n{one}", made, secret=f"s{one}{two}", role=role, identity=f"id-n{one}", fingerprint=fingerprint
        )
        if isinstance(answer, Joined):
            self.revoked.discard(answer.account)
            account = self.farm.core.authenticate(hash_of(f"s{one}{two}"))
            assert account is not None
            assert account.id == answer.account

    def who(self, one: int) -> Who:
        """One of the accounts that there are, or this machine's own."""
        accounts = sorted(self.farm.core.state.register.accounts.values(), key=lambda account: account.id)
        if not accounts or one == 3:
            return LOCAL_NODE
        account = accounts[one % len(accounts)]
        return Who(name=account.name, role=account.role, account=account.id, peer="192.0.2.7")

    def link(self, one: int, two: int, fingerprint: str) -> None:
        """An account's link says Hello as some slave."""
        who = self.who(one)
        link = self.farm.link(f"n{two}", who=who, fingerprint=fingerprint)
        if link in self.farm.core.state.links:
            self.links.append(link)
            assert self.farm.core.state.links[link].account == who.account

    def show(self, secret: str, really: bool) -> None:
        """A link is opened with a secret, perhaps an account's next one: then it is the only one."""
        account = self.farm.core.authenticate(hash_of(secret))
        if account is not None and really:
            self.farm.show(account.id, secret)
            found = self.farm.core.state.register.accounts[account.id]
            assert hash_of(secret) != found.next_hash

    def verb(self, verb: str, one: int, two: int) -> None:
        """An admin does something to an account."""
        views = [
            *self.farm.accounts(),
            *self.farm.accounts("user"),
            *self.farm.accounts(pending=True),
        ]
        if not views:
            return
        view = views[(one * 4 + two) % len(views)]
        self.farm.made += 1
        role = ("viewer", "artist", "supervisor", "admin")[two]
        request = self.farm.account_verb(view.id, verb, view.kind, role=role)
        answer = self.farm.ask(request, fresh=token(self.farm.made))
        if isinstance(answer, TheLine):
            self.tokens.append(token(self.farm.made))
        if verb == "revoke" and view.state == "active":
            self.revoked.add(view.id)

    def check(self) -> None:
        """Whoever was revoked is gone, with all that hung on it."""
        state = self.farm.core.state
        assert not self.revoked & state.register.accounts.keys()
        assert not self.revoked & state.bound.keys()
        for link in self.links:
            slave = state.links.get(link)
            assert slave is None or not slave.account or slave.account in state.register.accounts
        roles = {account.role for account in state.register.named("user", "ada")}
        assert len(roles) <= 1, "a person has one role"


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_to_accounts(seed: int) -> None:
    rng, walk = Random(seed), Walk()
    for what in rng.choices([*ACTIONS], [*ACTIONS.values()], k=STEPS):
        one, two, fingerprint = rng.randrange(4), rng.randrange(4), rng.choice(("", "f0", "f1"))
        match what:
            case "line":
                walk.line(rng.choice(("node", "user")), one, rng.random() < 0.5)
            case "join":
                walk.join(one, two, fingerprint)
            case "link":
                walk.link(one, two, fingerprint)
            case "unlink" if walk.links:
                walk.farm.unlink(walk.links.pop(rng.randrange(len(walk.links))))
            case "verb":
                walk.verb(rng.choice(VERBS), one, two)
            case "secret" if walk.links:
                link = rng.choice(walk.links)
                walk.farm.says(link, SecretTaken(secret_hash=hash_of(f"s{one}{two}")))
                walk.show(f"s{one}{two}", rng.random() < 0.5)
            case "wait":
                walk.farm.wait(rng.choice((1.0, 4000.0, 100_000.0)))
                walk.farm.read_clock()
            case "restart":
                walk.farm.restart()
                walk.links.clear()
            case _:
                pass
        walk.check()
