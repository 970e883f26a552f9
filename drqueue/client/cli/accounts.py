"""`drqueue node` and `drqueue user`: who may use the farm, and the lines that bring them to it."""

import re
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import DURATION, Commands, Whole, asked, common, say
from drqueue.client.cli.output import Cell, Column, Table
from drqueue.client.cli.words import many

if TYPE_CHECKING:
    from drqueue.client.asking import Did
    from drqueue.client.async_client import AsyncClient
    from drqueue.proto.messages import AccountRole, TheLine
    from drqueue.proto.views import AccountView

Kind = Literal["node", "user"]
Function = TypeVar("Function", bound=Callable[..., Any])

ROLES = ("viewer", "artist", "supervisor", "admin")
_TTL_MOST = 365 * 86400
#: What approval codes look like.
_CODE = re.compile(r"[A-Z2-7]{4}(-[A-Z2-7]{4}){2}")
#: How a line is used.
_USE = {
    "node": "paste it on the node: drqueue-slave join LINE",
    "user": "who gets it pastes it: drqueue login LINE",
}


def _line_options(function: Function) -> Function:
    """What both kinds of line can be told."""
    for option in (
        click.option("--net", metavar="CIDR", default="", help="Good from this network only."),
        click.option(
            "--uses", type=Whole(1, 10_000), metavar="N", default=1, help="How often; default: once."
        ),
        click.option(
            "--ttl",
            type=DURATION,
            metavar="TIME",
            default="1h",
            help="How long, as 90s, 15m, 1h or 2d; default: 1h.",
        ),
    ):
        function = option(function)
    return function


# -- nodes ------------------------------------------------------------------------------------------------


@click.group(cls=Commands, short_help="Bring nodes to the farm, list them, take them away.")
def node() -> None:
    """Bring nodes (the machines that slaves run on) to the farm, list them, take them away."""


@node.command("add", short_help="Print a line that brings a node to the farm.")
@click.option("--name", metavar="N", default="", help="What it will be called; default: as it calls itself.")
@_line_options
@common
def node_add(name: str, **given: Any) -> None:
    """Print a line that brings a node to the farm: paste it there, `drqueue-slave join LINE`."""
    _add("node", name, None, **given)


@node.command("list", short_help="List nodes.")
@click.option("--all", "every", is_flag=True, help="Lines that are not used up, too.")
@common
def node_list(every: bool) -> None:
    """List nodes that may link to the master."""
    _list("node", every)


@node.command("pending", short_help="List nodes that wait to be approved.")
@common
def node_pending() -> None:
    """List nodes that asked without a line. Compare the code with the one that the node itself shows."""
    options = asked()
    found = options.talk(lambda farm: farm.accounts("node", pending=True))
    if options.json:
        output.show_json(found)
    elif found:
        table = Table(Column("CODE"), Column("NAME", least=8), Column("FROM", least=9), Column("SINCE"))
        rows = ((view.code, view.name, view.peer, output.moment(view.created_at)) for view in found)
        output.show(table.lines(rows))
        if sys.stderr.isatty():
            say("compare the code with what the node shows, then: drqueue node approve CODE")
    else:
        say("no node waits to be approved")


@node.command("approve", short_help="Let in a node that waits.")
@click.argument("name", metavar="CODE|NAME")
@click.option("--yes", is_flag=True, help="By NAME, without comparing codes.")
@common
def node_approve(name: str, yes: bool) -> None:
    """Let in a node that waits. Make sure that the code is the one that the node itself shows.

    By NAME, the code is shown, and asked about; where nobody can be asked, that takes --yes.
    """
    meant = name if yes or _CODE.fullmatch(name.upper()) else _compared(name)
    if meant is None:
        raise click.Abort
    _do("node", name, lambda farm: farm.approve_node(meant), "approved")


def _compared(name: str) -> str | None:
    """The code of the node of that name that waits, once somebody compared it; None where it differs."""
    from drqueue.client.errors import NoSuchAccount

    found = asked().talk(lambda farm: farm.accounts("node", pending=True))
    waiting = [view for view in found if name in (view.name, view.id)]
    if not waiting:
        raise NoSuchAccount("no-such-account", f"no node {name!r} waits to be approved")
    if len(waiting) > 1:
        codes = ", ".join(view.code for view in waiting[:20])
        raise NoSuchAccount(
            "ambiguous", f"{len(waiting)} nodes called {name} wait: name one by its code ({codes})"
        )
    (view,) = waiting
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(
            "name it by the code that the node itself shows, or say --yes: any machine can call itself"
            f" {name}",
            click.get_current_context(),
        )
    question = f"does the node itself show {view.code}?"
    return view.code if click.confirm(output.clean(question), default=False, err=True) else None


@node.command("reject", short_help="Turn away a node that waits.")
@click.argument("name", metavar="CODE|NAME")
@common
def node_reject(name: str) -> None:
    """Turn away a node that waits."""
    _do("node", name, lambda farm: farm.reject_node(name), "turned away")


# -- people -----------------------------------------------------------------------------------------------


@click.group(cls=Commands, short_help="Bring people to the farm, list them, take them away.")
def user() -> None:
    """Bring people to the farm, list them, say what they may do, take them away."""


@user.command("add", short_help="Print a line that brings somebody to the farm.")
@click.argument("name")
@click.option(
    "--role", type=click.Choice(ROLES), help="What they may do; default: what they may already, or artist."
)
@_line_options
@common
def user_add(name: str, role: "AccountRole | None", **given: Any) -> None:
    """Print a line that brings somebody to the farm: they use it with `drqueue login LINE`.

    For a NAME that there is already, it makes one more login of the same person.
    """
    _add("user", name, role, **given)


@user.command("list", short_help="List people.")
@click.option("--all", "every", is_flag=True, help="Lines that are not used up, too.")
@common
def user_list(every: bool) -> None:
    """List people who may use the farm over the network."""
    _list("user", every)


@user.command("role", short_help="Say what somebody may do.")
@click.argument("name")
@click.argument("role", type=click.Choice(ROLES))
@common
def user_role(name: str, role: "AccountRole") -> None:
    """Say what somebody may do: be a viewer, an artist, a supervisor, an admin."""
    _do("user", name, lambda farm: farm.set_role(name, role), f"is {role} now")


# -- both -------------------------------------------------------------------------------------------------


def _verbs(group: click.Group, kind: Kind) -> None:
    """`revoke` and `rotate`, which are alike for nodes and people."""
    whose = "a node" if kind == "node" else "somebody"

    @group.command(
        "revoke",
        help=f"Take the account of {whose} away, by NAME or id: links are cut at once, lines are void.",
        short_help=f"Take the account of {whose} away.",
    )
    @click.argument("name")
    @common
    def revoke(name: str) -> None:
        _do(kind, name, lambda farm: farm.revoke_account(kind, name), "revoked")

    @group.command(
        "rotate",
        help=f"Have {whose} get a new secret, by NAME or id. If that takes a line, it is printed.",
        short_help=f"Have {whose} get a new secret.",
    )
    @click.argument("name")
    @common
    def rotate(name: str) -> None:
        from drqueue.client.asking import Did

        answer = asked().talk(lambda farm: farm.rotate_account(kind, name))
        if isinstance(answer, Did):
            _done(kind, name, answer, "gets a new secret")
        else:
            _show_line(kind, answer)


_verbs(node, "node")
_verbs(user, "user")


def _add(kind: Kind, name: str, role: "AccountRole | None", ttl: float, uses: int, net: str) -> None:
    if not 1 <= ttl <= _TTL_MOST:
        raise click.UsageError("--ttl is from 1s to 365d", click.get_current_context())
    if net:
        import ipaddress

        try:
            net = str(ipaddress.ip_network(net, strict=False))
        except ValueError:
            raise click.UsageError(
                f"--net is a network, as 10.0.0.0/8, not {net!r}", click.get_current_context()
            ) from None
    line = asked().talk(lambda farm: farm.add_line(kind, name=name, role=role, ttl_s=ttl, uses=uses, net=net))
    _show_line(kind, line)


def _show_line(kind: Kind, line: "TheLine") -> None:
    if asked().json:
        output.show_json(line)
        return
    print(output.clean(line.line), flush=True)
    if line.note:
        say(line.note)
    if sys.stderr.isatty():
        say(f"{_USE[kind]} (good until {output.moment(line.expires_at)})")


def _do(kind: Kind, name: str, tell: "Callable[[AsyncClient], Awaitable[Did]]", what: str) -> None:
    _done(kind, name, asked().talk(tell), what)


def _done(kind: Kind, name: str, did: "Did", what: str) -> None:
    if asked().json:
        output.show_json({"name": name, "count": did.count, "note": did.note})
    elif did.note or sys.stderr.isatty():
        line = f"{kind} {name} {what}" if sys.stderr.isatty() else ""
        say("; ".join(part for part in (line, did.note) if part))


def _list(kind: Kind, every: bool) -> None:
    options = asked()
    found = options.talk(lambda farm: farm.accounts(kind))
    shown = [view for view in found if every or view.state != "line"]
    if options.json:
        output.show_json(shown)
        return
    accounts = [view for view in shown if view.state != "line"]
    lines = [view for view in shown if view.state == "line"]
    if accounts:
        output.show(_nodes(accounts) if kind == "node" else _people(accounts))
    else:
        say(
            "no nodes"
            if kind == "node"
            else "nobody: only who works on the master's machine may use the farm"
        )
    if lines:
        if accounts:
            print()
        output.show(_lines(lines))


def _nodes(views: "list[AccountView]") -> list[str]:
    table = Table(
        Column("NAME", least=8),
        Column("STATE"),
        Column("SLAVE", least=5),
        Column("FROM", least=9),
        Column("SINCE"),
        Column("BY", least=5),
        Column("ID"),
    )
    return table.lines(
        (
            view.name,
            _state(view),
            view.slave,
            view.peer,
            output.moment(view.created_at),
            view.created_by,
            view.id,
        )
        for view in views
    )


def _people(views: "list[AccountView]") -> list[str]:
    table = Table(
        Column("NAME", least=8),
        Column("ROLE"),
        Column("STATE"),
        Column("FROM", least=9),
        Column("SINCE"),
        Column("BY", least=5),
        Column("ID"),
    )
    return table.lines(
        (
            view.name,
            view.role,
            _state(view),
            view.peer,
            output.moment(view.created_at),
            view.created_by,
            view.id,
        )
        for view in views
    )


def _state(view: "AccountView") -> Cell:
    if view.state != "active":
        return Cell(view.state, "yellow")
    return Cell("linked", "green") if view.linked else Cell("away", "dim")


def _lines(views: "list[AccountView]") -> list[str]:
    table = Table(
        Column("LINE FOR", least=8),
        Column("ROLE"),
        Column("GOOD FOR"),
        Column("UNTIL"),
        Column("NETWORK", least=9),
        Column("BY", least=5),
        Column("ID"),
    )
    return table.lines(
        (
            view.name or "(any)",
            view.role,
            many(view.uses_left, "use"),
            output.moment(view.expires_at),
            view.net,
            view.created_by,
            view.id,
        )
        for view in views
    )
