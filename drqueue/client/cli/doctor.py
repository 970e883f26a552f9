"""`drqueue doctor`: what is well and what is not, here, at the master, at the slaves, and between them.

Rules: what can be said without a master is said first, and always. States are words, not colours. Exit
status: 0 where nothing is bad, 1 where something is, 69 where no master answers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import asked, common

if TYPE_CHECKING:
    from drqueue.client.async_client import AsyncClient
    from drqueue.proto.views import Finding

_WORDS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "bad": ("BAD", "red")}
#: Columns of "  warn  " and of what was looked at.
_STATE, _WHAT = 8, 17


class Part(NamedTuple):
    """Where something was looked at, and what was found; a `brief` one shows only what is not ok."""

    where: str
    findings: "Sequence[Finding]"
    brief: bool = False


@click.command(short_help="Say what is well and what is not with the farm.")
@click.argument("slaves", metavar="[SLAVE]...", nargs=-1)
@common
def doctor(slaves: tuple[str, ...]) -> int:
    """Say what is well and what is not: here, at the master, at the slaves (or those named), between them.

    Of a slave that is not named, only what is not ok is shown. Exit status: 0 if nothing is BAD, 1 otherwise,
    69 if no master answers.
    """
    import trio

    from drqueue.client.cli import probes

    options = asked()
    named = options.address()
    wanted = options.env().get("DRQUEUE_MASTER", "") if named is None else named
    files, ways = probes.own_files(options.env())
    found = trio.run(probes.places, wanted, options.env(), ways)
    parts = [Part("this machine", [*files, *probes.judged(found, bool(wanted.strip() or ways))])]
    if not options.json:
        _show(parts)
    opens = any(place.opens for place in found)
    try:
        if opens:
            farm_parts = options.talk(lambda farm: _farm(farm, slaves))
            parts += farm_parts
            if not options.json:
                _show(farm_parts)
    finally:
        # Also where the master went away in the middle of it.
        if options.json:
            output.show_json(
                [{"where": part.where, **output.plain(one)} for part in parts for one in part.findings]
            )
    if not options.json:
        print(_summary(parts))
    if not opens and not any(place.answers for place in found):
        from drqueue.client.cli.main import UNREACHABLE

        return UNREACHABLE
    return int(_count(parts, "bad") > 0)


async def _farm(farm: "AsyncClient", names: Sequence[str]) -> list[Part]:
    import time

    from drqueue.client.cli import probes

    of_master, may_examine = await probes.master_findings(farm)
    views = await probes.wanted_slaves(farm, names)
    if views is None:
        return [Part("master", [*of_master, probes.no_answer("slaves")])]
    of_slaves = await probes.slaves_findings(farm, views, may_examine, time.time())
    return [
        Part("master", of_master),
        *(
            Part(f"slave {view.name}", findings, not names)
            for view, findings in zip(views, of_slaves, strict=True)
        ),
    ]


def _show(parts: Sequence[Part]) -> None:
    for part in parts:
        shown = [one for one in part.findings if one.state != "ok" or not part.brief]
        well = len(part.findings) - len(shown)
        title = output.paint(output.clean(part.where), "bold")
        print(f"{title}: {well} ok" if part.brief and well else title)
        for one in shown:
            output.show(_lines(one))


def _lines(one: "Finding") -> list[str]:
    """A finding in a line or more of the screen's width, its advice below it."""
    word, style = _WORDS[one.state]
    indent = " " * (_STATE + _WHAT)
    lines = output.wrapped(one.text, indent) or [indent]
    what = output.cut(output.clean(one.what), _WHAT - 1)
    head = f"  {output.paint(word.ljust(_STATE - 2), style)}{what:<{_WHAT}}"
    lines[0] = head + lines[0][len(indent) :]
    return lines + output.wrapped(f"→ {one.advice}", indent) if one.advice else lines


def _count(parts: Sequence[Part], state: str) -> int:
    return sum(one.state == state for part in parts for one in part.findings)


def _summary(parts: Sequence[Part]) -> str:
    bad, warned = _count(parts, "bad"), _count(parts, "warn")
    if not bad and not warned:
        return "all is well"
    return f"{bad} BAD, {warned} to look at, {_count(parts, 'ok')} ok"
