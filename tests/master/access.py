"""One line each for tests of who has a way in: secrets, lines, joins."""

from drqueue.master.core.events import SecretShown
from drqueue.master.core.turn import Policy
from drqueue.proto import lines
from drqueue.proto.link_messages import Join, Joined, Rejected
from drqueue.proto.messages import Accounts, AccountVerb, AddLine, ListAccounts, TheLine
from drqueue.proto.roles import Who
from drqueue.proto.views import AccountView
from tests.builders import ADMIN, CoreFarm

PIN = lines.pin_of(b"the master's certificate")
POLICY = Policy(farm="farm", line_host="192.0.2.1", line_port=1234, line_pin=PIN, ticket_seed=b"seed")


def token(number: int) -> str:
    """The nth token that a test's shell makes up."""
    return lines.encoded(number.to_bytes(lines.TOKEN_BYTES, "big"))


def secret(name: str) -> str:
    """Somebody's secret."""
    return lines.encoded(name.encode().ljust(lines.SECRET_BYTES, b"."))


def hash_of(name: str) -> str:
    """What the master keeps of it."""
    return lines.secret_hash(secret(name))


class AccessFarm(CoreFarm):
    """A farm whose master listens on the network."""

    def __init__(self, policy: Policy = POLICY) -> None:
        super().__init__(policy)
        self.made = 0

    def add_line(self, who: Who = ADMIN, **fields: object) -> str:
        """The token of a line that must be made."""
        self.made += 1
        fields.setdefault("kind", "node")
        answer = self.ask(AddLine(rq=0, **fields), who, token(self.made))  # type: ignore[arg-type]
        assert isinstance(answer, TheLine), answer
        return lines.parse_line(answer.line, str(fields["kind"])).token  # type: ignore[arg-type]

    def joins(self, name: str, with_token: str = "", peer: str = "192.0.2.7:5000", **fields: str) -> Joined:
        """A node, or with role="client" a person, joins, which must work; its secret goes by its name."""
        answer = self.tries(name, with_token, peer, **fields)
        assert isinstance(answer, Joined), answer
        return answer

    def tries(
        self, name: str, with_token: str = "", peer: str = "192.0.2.7:5000", pin: str = "", **fields: str
    ) -> Joined | Rejected:
        """The same, with whatever comes of it."""
        fields.setdefault("role", "slave")
        secret_name = fields.pop("secret", name)
        join = Join(secret_hash=hash_of(secret_name), token=with_token, name=name, **fields)  # type: ignore[arg-type]
        return self.join(join, peer, pin)

    def rejected(self, *args: str, **fields: str) -> str:
        """The code with which a join is refused, as it must be."""
        answer = self.tries(*args, **fields)
        assert isinstance(answer, Rejected), answer
        return answer.code

    def node(self, name: str, **fields: str) -> Who:
        """A node that joined with a line of its own, as its link proves it."""
        account = self.joins(name, self.add_line(), **fields)
        return Who(name=account.name, role="node", account=account.account, peer="192.0.2.7:5001")

    def person(self, name: str, role: str = "artist", login: str = "") -> Who:
        """Somebody who logged in with a line of their own, as their link proves them."""
        made = self.add_line(kind="user", name=name, role=role)
        account = self.joins(name, made, role="client", secret=login or name)
        return Who(name=account.name, role=account.role, account=account.account, peer="192.0.2.8:5001")  # type: ignore[arg-type]

    def accounts(self, kind: str = "node", *, pending: bool = False) -> list[AccountView]:
        """All accounts and lines of a kind, or those that wait."""
        answer = self.ask(ListAccounts(rq=0, kind=kind, pending=pending, limit=1000))  # type: ignore[arg-type]
        return list(answer.accounts)  # type: ignore[attr-defined]

    def page(self, kind: str, cursor: int, limit: int) -> Accounts:
        """One page of accounts."""
        answer = self.ask(ListAccounts(rq=0, kind=kind, cursor=cursor, limit=limit))  # type: ignore[arg-type]
        assert isinstance(answer, Accounts)
        return answer

    def show(self, account: str, name: str) -> None:
        """A link was opened with somebody's secret."""
        self.step(SecretShown(account, hash_of(name)))

    def account_verb(self, name: str, verb: str, kind: str = "node", **fields: str) -> AccountVerb:
        """That request."""
        return AccountVerb(rq=0, kind=kind, name=name, verb=verb, **fields)  # type: ignore[arg-type]
