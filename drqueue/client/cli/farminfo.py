"""`drqueue farm`."""

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import asked, common
from drqueue.client.cli.output import Cell
from drqueue.proto.views import LoopLag


@click.command(short_help="Say who the master is and how the farm does.")
@common
def farm() -> None:
    """Say who the master is and how the farm does."""
    options = asked()
    info = options.talk(lambda client: client.farm_info())
    if options.json:
        output.show_json(info)
        return
    output.show(
        output.fields(
            (
                ("alarm", Cell(info.alarm, "red")),
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


def _lag(lag: LoopLag | None) -> str:
    if lag is None:
        return ""
    return f"{lag.median_ms:.1f} ms median, {lag.most_ms:.1f} ms at most, over the last minute"
