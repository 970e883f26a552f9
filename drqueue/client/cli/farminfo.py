"""`drqueue farm ...`."""

import sys

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import Commands, asked, common, say
from drqueue.client.cli.output import Cell
from drqueue.client.cli.words import many
from drqueue.proto.views import HoldbackView, LoopLag


@click.group(
    cls=Commands,
    invoke_without_command=True,
    subcommand_metavar="[resume]",
    short_help="Say how the farm does, or resume it after a restore.",
)
@common
@click.pass_context
def farm(ctx: click.Context) -> None:
    """Say who the master is and how the farm does."""
    if ctx.invoked_subcommand is None:
        _show()


def _show() -> None:
    options = asked()
    info = options.talk(lambda client: client.farm_info())
    if options.json:
        output.show_json(info)
        return
    output.show(
        output.fields(
            (
                ("alarm", Cell(info.alarm, "red")),
                ("held back", Cell(_held_back(info.holdback), "yellow", below=True)),
                ("clock", Cell(info.clock, "yellow", below=True)),
                ("farm", info.farm),
                ("epoch", str(info.epoch)),
                ("software", info.software),
                ("up since", output.moment(info.started_at)),
                ("jobs", str(info.jobs)),
                ("slaves", f"{info.slaves_linked} of {info.slaves} linked"),
                ("cores", f"{info.cores_used} of {info.cores} in use"),
                ("frames", f"{info.frames_running} running, {info.frames_waiting} waiting"),
                ("loop lag", _lag(info.lag)),
            )
        )
    )


def _held_back(view: HoldbackView | None) -> str:
    """What waits after a restore from a backup, and until when."""
    if view is None:
        return ""
    text = f"{many(view.jobs, 'job')} of the restored backup"
    if view.until_at:
        text += f", until {output.moment(view.until_at)} at most"
    if view.for_operator:
        which = "" if view.for_operator == view.jobs else f", {view.for_operator} of them"
        text += f"{which} until drqueue farm resume"
    return text + (f"; {many(view.slaves_away, 'slave')} not linked since" if view.slaves_away else "")


def _lag(lag: LoopLag | None) -> str:
    if lag is None:
        return ""
    return f"{lag.median_ms:.1f} ms median, {lag.most_ms:.1f} ms at most, over the last minute"


@farm.command("resume", short_help="Vouch, after a restore, that nothing runs any more.")
@common
def resume() -> None:
    """Vouch, after a restore from a backup, that no slave out of reach runs anything that began since it was
    made: the backup's jobs go on at once.

    Else they wait until every lease is over. A frame that such a slave still runs is started a second time,
    and the two write the same files: see first that all slaves are linked, or their machines off.
    """
    did = asked().talk(lambda client: client.resume_farm())
    if asked().json:
        output.show_json({"count": did.count, "note": did.note})
    elif did.note or sys.stderr.isatty():
        gone = f"{many(did.count, 'job')} of the backup go{'es' if did.count == 1 else ''} on"
        say(f"{gone}; {did.note}" if did.note and did.count else did.note or gone)
