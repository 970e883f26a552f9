"""`drqueue share`: what projects and users get of a pool."""

from typing import TYPE_CHECKING, Any

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import NO_BOUND, Amount, Commands, asked, common, say
from drqueue.client.cli.output import Cell, Column, Table
from drqueue.client.cli.words import amount_text, told

if TYPE_CHECKING:
    from drqueue.client.asking import Did
    from drqueue.client.async_client import AsyncClient
    from drqueue.proto.model import Share, Sharer
    from drqueue.proto.views import ShareView


class Whose(click.ParamType[tuple[str, str]]):
    """WHO: `project:NAME` or `user:NAME`, as the two words; `project:` are jobs without a project."""

    name = "who"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        kind, colon, name = value.partition(":")
        if not colon or kind not in ("project", "user") or (kind == "user" and not name):
            self.fail(f"{value!r} is neither project:NAME nor user:NAME", param, ctx)
        return kind, name


WHO = Whose()


@click.group(cls=Commands, short_help="List, set and drop shares of projects and users.")
def share() -> None:
    """List, set and drop shares: what projects, and within them users, get of a pool's cores.

    Among jobs of one priority, in a pool whose policy is `fair`, who has least for their weight goes next.
    """


@share.command("list", short_help="List shares, and whoever has frames.")
@click.option("--pool", metavar="NAME", help="Of this pool only.")
@common
def list_(pool: str | None) -> None:
    """List projects and users, by pool: what they were given, cores that they have now and had of late."""
    options = asked()
    found = options.talk(lambda farm: farm.shares())
    found = tuple(view for view in found if pool is None or view.pool in (pool, ""))
    if options.json:
        output.show_json(found)
        return
    if not found:
        say("no shares and no frames; give a share: drqueue share set project:NAME --weight 2")
        return
    table = Table(
        Column("WHO", least=12),
        Column("POOL", least=7),
        Column("WEIGHT", right=True),
        Column("MIN", right=True),
        Column("BURST", right=True),
        Column("CORES", right=True),
        Column("OF LATE", right=True),
        Column("WAITING", right=True),
    )
    output.show(table.lines([_row(view) for view in found]))


def _row(view: "ShareView") -> list[str | Cell]:
    given = view.share
    mine = given is not None and given.pool == view.pool
    return [
        f"{view.of}:{view.name}",
        view.pool or "(all)",
        Cell("1" if given is None else amount_text(given.weight), "" if mine else "dim"),
        amount_text(given.minimum) if given is not None and mine and given.minimum else "",
        amount_text(given.burst) if given is not None and mine and given.burst is not None else "",
        amount_text(view.cores),
        f"{view.remembered:.1f}",
        str(view.waiting),
    ]


@share.command("set", short_help="Give a project or a user a share.")
@click.argument("who", metavar="WHO", type=WHO)
@click.option(
    "--pool", metavar="NAME", default="", help="The pool; default: all that have none of their own."
)
@click.option("--weight", type=Amount(above=True), metavar="X", help="How much more than one with weight 1.")
@click.option(
    "--minimum", type=Amount(), metavar="CORES", help="Below these a project goes before all others."
)
@click.option("--burst", type=Amount("none"), metavar="CORES|none", help="A project never has more.")
@common
def set_(
    who: tuple["Sharer", str], pool: str, weight: float | None, minimum: float | None, burst: float | None
) -> None:
    """Give WHO (project:NAME or user:NAME) a share, or change it: what is left out stays.

    `project:` without a name are jobs without a project. A minimum and a burst are of one pool: name it.
    """
    options: dict[str, Any] = {"weight": weight, "minimum": minimum, "burst": burst}
    change = {name: value for name, value in options.items() if value is not None}
    if not change:
        raise click.UsageError("nothing was named: --weight, --minimum or --burst")
    if change.get("burst") == NO_BOUND:
        change["burst"] = None
    of, name = who
    made: list[Share] = []

    async def use(farm: "AsyncClient") -> "Did":
        from msgspec import structs

        from drqueue.proto.model import Share

        mine = [view.share for view in await farm.shares() if (view.of, view.name) == (of, name)]
        given = {share.pool: share for share in mine if share is not None}
        former = given.get(pool)
        if former is None:
            # A share of this pool takes the place of the one of all pools: the weight is to stay.
            weight = given[""].weight if "" in given else 1
            former = Share(of=of, name=name, pool=pool, weight=weight)
        made.append(structs.replace(former, **change))
        return await farm.set_share(made[0])

    did = asked().talk(use)
    told(did, f"{of}:{name} has {_terms(made[0])} now", of=of, name=name, pool=pool)


def _terms(share: "Share") -> str:
    parts = [f"weight {amount_text(share.weight)}"]
    parts += [f"a minimum of {amount_text(share.minimum)}"] if share.minimum else []
    parts += [] if share.burst is None else [f"a burst of {amount_text(share.burst)}"]
    return f"{', '.join(parts)} in {f'pool {share.pool}' if share.pool else 'all pools'}"


@share.command("drop", short_help="Forget what a project or a user was given.")
@click.argument("who", metavar="WHO", type=WHO)
@click.option("--pool", metavar="NAME", default="", help="The pool; default: what was given of all.")
@common
def drop(who: tuple["Sharer", str], pool: str) -> None:
    """Forget what WHO (project:NAME or user:NAME) was given."""
    of, name = who
    did = asked().talk(lambda farm: farm.drop_share(of, name, pool))
    told(did, f"the share of {of}:{name} is dropped", of=of, name=name, pool=pool)
