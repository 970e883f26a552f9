"""`drqueue slaves`, `drqueue slave NAME` and what can be done to a slave."""

import re
import sys
from typing import TYPE_CHECKING, Any

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import asked, common, say
from drqueue.client.cli.output import Cell, Column, Table
from drqueue.client.cli.words import amount_text, many

if TYPE_CHECKING:
    from drqueue.client.asking import Did
    from drqueue.proto.model import Gpu
    from drqueue.proto.views import SlaveView


@click.command(short_help="List slaves.")
@common
def slaves() -> None:
    """List slaves with what they offer and how busy they are."""
    options = asked()
    found = options.talk(lambda farm: farm.slaves())
    if options.json:
        output.show_json(found)
    elif found:
        output.show(_table(found))
    else:
        say("no slaves")


def _table(found: "tuple[SlaveView, ...]") -> list[str]:
    table = Table(
        Column("ID", right=True),
        Column("NAME", least=8),
        Column("STATE"),
        Column("CORES", right=True),
        Column("MEMORY", right=True),
        Column("LOAD", right=True),
        Column("CPU", right=True),
        Column("DONE", right=True),
        Column("FAIL", right=True),
        Column("POOLS", least=7),
    )
    return table.lines(
        (
            str(view.id),
            view.name,
            output.state(view.state),
            f"{amount_text(view.cores_used)}/{view.cores}",
            output.memory(view.memory_mb),
            f"{view.load.load1:.1f}",
            f"{view.load.cpu_percent:.0f}%",
            str(view.frames_done),
            str(view.frames_failed),
            ",".join(view.limits.pools),
        )
        for view in found
    )


class _SlaveGroup(click.Group):
    """A group whose first word may be a slave's name: `slave NAME` shows it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=_SlaveGroup, short_help="Show a slave, or enable, limit, heal, forget one.")
def slave() -> None:
    """Show a slave (`drqueue slave NAME`), or do something to one.

    NAME is its name, host name or address.
    """


@slave.command("show", short_help="Show a slave, as `slave NAME` does.")
@click.argument("name")
@common
def show(name: str) -> None:
    """Show a slave and what runs on it."""
    options = asked()
    view = options.talk(lambda farm: farm.slave(name), lazily=True)
    if options.json:
        output.show_json(view)
        return
    output.show(_slave_lines(view))
    if view.running:
        print()
        table = Table(
            Column("JOB", right=True),
            Column("LAYER", least=6),
            Column("FRAME", right=True),
            Column("STARTED"),
            Column("DONE", right=True),
            Column("ACTIVITY", least=10),
        )
        output.show(
            table.lines(
                (
                    str(each.job),
                    each.layer_name,
                    str(each.number),
                    output.moment(each.started_at),
                    output.percent(each.progress),
                    each.activity,
                )
                for each in view.running
            )
        )


def _slave_lines(view: "SlaveView") -> list[str]:
    machine, load, limits = view.machine, view.load, view.limits
    measured = f"{machine.cores_physical} physical, {machine.cores_logical} logical"
    return output.fields(
        (
            ("slave", f"{view.name} ({view.id})"),
            ("state", output.state(view.state)),
            ("sick", Cell(_sickness(view), "red", below=True)),
            ("host", machine.hostname),
            ("system", " ".join(part for part in (machine.os, machine.os_release, machine.arch) if part)),
            ("processor", machine.cpu_model),
            ("measured", f"{measured} cores, {output.memory(machine.memory_mb)} memory"),
            *(_gpu(view, gpu) for gpu in machine.gpus),
            ("offers", Cell(_offered(view), below=True)),
            ("in use", Cell(_used(view), below=True)),
            ("tags", Cell(", ".join(view.offers.tags), below=True)),
            *((f"{key} =", value) for key, value in sorted(view.offers.attributes.items())),
            ("load", f"{load.load1:.2f} {load.load5:.2f} {load.load15:.2f}, CPU {load.cpu_percent:.0f}%"),
            ("free", f"{output.memory(load.memory_free_mb)} memory, {output.memory(load.disk_free_mb)} disk"),
            ("max cpus", "" if limits.max_cpus is None else str(limits.max_cpus)),
            ("max load", "" if limits.max_load is None else f"{limits.max_load:g}"),
            ("pools", ", ".join(limits.pools)),
            ("autoenable", limits.autoenable or ""),
            ("frames", f"{view.frames_done} done, {view.frames_failed} failed"),
            ("control", view.control),
            ("last heard", output.moment(view.last_heard_at)),
        )
    )


def _cores(count: float) -> str:
    return f"{amount_text(count)} core{'' if count == 1 else 's'}"


def _sickness(view: "SlaveView") -> str:
    return f"{view.sick} (when it is well: drqueue slave heal {view.name})" if view.sick else ""


def _gpu(view: "SlaveView", gpu: "Gpu") -> tuple[str, Cell]:
    """A device: what it is, and whose it is."""
    users = [each for each in view.running if gpu.index in each.gpus]
    if gpu.index not in view.offers.gpus:
        state = "not offered"
    elif users:
        state = ", ".join(f"job {each.job} frame {each.number}" for each in users)
    else:
        state = "in use" if gpu.index in view.gpus_used else "free"
    return f"GPU {gpu.index}", Cell(f"{gpu.name}, {output.memory(gpu.memory_mb)}: {state}")


def _offered(view: "SlaveView") -> str:
    offers = view.offers
    parts = [_cores(view.cores), f"{output.memory(view.memory_mb)} memory"]
    parts += [many(len(offers.gpus), "GPU")] if offers.gpus else []
    parts += [f"{output.memory(offers.disk_mb)} disk"] if offers.disk_mb else []
    return ", ".join((*parts, *(f"{amount_text(n)} {name}" for name, n in sorted(offers.amounts.items()))))


def _used(view: "SlaveView") -> str:
    parts = [_cores(view.cores_used), f"{output.memory(view.memory_used_mb)} memory"]
    parts += [many(len(view.gpus_used), "GPU")] if view.gpus_used else []
    parts += [f"{output.memory(view.disk_used_mb)} disk"] if view.disk_used_mb else []
    return ", ".join((*parts, *(f"{amount_text(n)} {name}" for name, n in sorted(view.amounts_used.items()))))


@slave.command("enable")
@click.argument("name")
@common
def enable(name: str) -> None:
    """Let a slave take frames."""
    _show(name, asked().talk(lambda farm: farm.enable_slave(name), lazily=True), "enabled")


@slave.command("disable")
@click.argument("name")
@common
def disable(name: str) -> None:
    """Give a slave no new frames; running ones end normally."""
    _show(
        name,
        asked().talk(lambda farm: farm.disable_slave(name), lazily=True),
        "disabled; its running frames end normally",
    )


@slave.command("forget")
@click.argument("name")
@common
def forget(name: str) -> None:
    """Strike a slave that is gone off the list."""
    _show(name, asked().talk(lambda farm: farm.forget_slave(name)), "forgotten")


@slave.command("heal", short_help="Send frames again to a slave that was found sick.")
@click.argument("name")
@common
def heal(name: str) -> None:
    """Send frames again to a slave that was found sick: too many frames failed on it in a row."""
    _show(name, asked().talk(lambda farm: farm.heal_slave(name)), "healed, it gets frames again")


@slave.command("declare-dead", short_help="Vouch that a slave runs nothing any more.")
@click.argument("name")
@common
def declare_dead(name: str) -> None:
    """Vouch that a slave runs nothing any more: its frames go elsewhere at once."""
    did = asked().talk(lambda farm: farm.declare_dead(name))
    _show(name, did, f"declared dead, {many(did.count, 'frame')} of it given elsewhere")


@slave.command("set")
@click.argument("name")
@click.option("--max-cpus", metavar="N|none", help="Cores that frames may use at most.")
@click.option("--max-load", metavar="X|none", help="For each such load of others, one core less.")
@click.option("--pools", metavar="A,B", help="Pools it works for.")
@click.option("--autoenable", metavar="H:M|off", help="Time of day at which it enables itself.")
@common
def set_limits(name: str, **given: str | None) -> None:
    """Change what a slave lets the farm use."""
    from drqueue.proto.model import LimitsChange

    change = {key: _limit(key, text) for key, text in given.items() if text is not None}
    if not change:
        raise click.UsageError("nothing to change was named")
    _show(
        name, asked().talk(lambda farm: farm.set_slave(name, LimitsChange(**change)), lazily=True), "changed"
    )


def _limit(key: str, text: str) -> Any:
    option = f"--{key.replace('_', '-')}"
    if key == "pools":
        pools = tuple(part for part in re.split(r"[\s,]+", text) if part)
        if not pools:
            raise click.UsageError(f"{option} needs at least one pool")
        return pools
    if text.lower() in ("none", "off"):
        return None
    if key == "autoenable":
        if not re.fullmatch(r"([01]?[0-9]|2[0-3]):[0-5]?[0-9]", text):
            raise click.UsageError(f"{option} is a time of day H:M, or off, not {text!r}")
        return text
    try:
        number = int(text) if key == "max_cpus" else float(text)
        if not 0 <= number < 1e9:
            raise ValueError
    except ValueError:
        raise click.UsageError(f"{option} is a number from 0 on, or none, not {text!r}") from None
    return number


def _show(name: str, did: "Did", what: str) -> None:
    if asked().json:
        output.show_json({"name": name, "count": did.count, "note": did.note})
    elif did.note or sys.stderr.isatty():
        # The note says what became of it where that is not yet so.
        say(did.note or f"slave {name} {what}")
