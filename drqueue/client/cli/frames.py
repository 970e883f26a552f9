"""`drqueue frames` and `drqueue frame kill|requeue|finish`."""

import time
from typing import TYPE_CHECKING, Any

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import FRAMES, JOB_ID, asked, common, say
from drqueue.client.cli.output import Column, Table

if TYPE_CHECKING:
    from drqueue.client.async_client import AsyncClient, Did
    from drqueue.proto.views import FrameView

STATES = ("WAITING", "BLOCKED", "ASSIGNED", "RUNNING", "DONE", "FAILED", "CANCELLED")
_BATCH = 500


@click.command(short_help="List a job's frames.")
@click.argument("job_id", metavar="ID", type=JOB_ID)
@click.option("--layer", metavar="NAME", default="", help="One layer's only.")
@click.option(
    "--state",
    "states",
    type=click.Choice(STATES, case_sensitive=False),
    multiple=True,
    help="Those in this state only; repeatable.",
)
@common
def frames(job_id: int, layer: str, states: tuple[str, ...]) -> None:
    """List a job's frames with where they stand and how they ended."""
    options = asked()

    async def use(farm: "AsyncClient") -> None:
        # Page by page: a job may have millions of frames.
        pages = farm.each_frame(job_id, layer=layer, states=states)
        if options.json:
            first = True
            async for view in pages:
                print("[" if first else ",", output.json_line(view), sep="\n" if first else "", end="")
                first = False
            print("[]" if first else "\n]")
            return
        several = len((await farm.job(job_id))[1]) > 1
        table, batch = _table(several), []
        async for view in pages:
            batch.append(view)
            if len(batch) == _BATCH:
                output.show(table.lines([_row(each, several) for each in batch]))
                batch.clear()
        output.show(table.lines([_row(each, several) for each in batch]))

    options.talk(use)


def _table(several: bool) -> Table:
    layer = [Column("LAYER", least=6)] if several else []
    return Table(
        Column("FRAME", right=True),
        *layer,
        Column("STATE"),
        Column("TRY", right=True),
        Column("SLAVE", least=8),
        Column("STARTED"),
        Column("TIME", right=True),
        Column("CPU", right=True),
        Column("MEM", right=True),
        Column("NOTE", least=10),
    )


def _row(view: "FrameView", several: bool) -> list[Any]:
    numbers = str(view.number) if view.count == 1 else f"{view.number}{_to(view)}{view.last}"
    end = view.ended_at or (time.time() if view.state in ("RUNNING", "ASSIGNED") else 0)
    took = output.duration(max(0.0, end - view.started_at)) if view.started_at and end else ""
    return [
        numbers,
        *([view.layer_name] if several else []),
        output.state(view.state),
        str(view.attempt or ""),
        view.slave,
        output.moment(view.started_at)[-8:],
        took,
        output.duration(view.cpu_s) if view.cpu_s else "",
        output.memory(view.peak_mb) if view.peak_mb else "",
        note(view),
    ]


def _to(view: "FrameView") -> str:
    return "-" if min(view.number, view.last) >= 0 else ".."


def note(view: "FrameView") -> str:
    """What else there is to say of a frame, in a few words."""
    if view.state == "RUNNING":
        parts = [output.percent(view.progress) if view.progress else "", view.activity]
        parts.append(f"({view.stop})" if view.stop else "")
    elif view.state == "DONE":
        parts = []
    else:
        ended = view.text or view.reason
        if not ended and view.signal is not None:
            ended = f"signal {view.signal}"
        if not ended and view.code:
            ended = f"exit {view.code}"
        parts = [f"requeued {view.requeued}x" if view.requeued else "", ended]
    return " ".join(part for part in parts if part)


@click.group(short_help="Kill, requeue or finish frames.")
def frame() -> None:
    """Kill, requeue or finish frames; FRAMES is a range, or LAYER:RANGE."""


@frame.command("kill")
@click.argument("job_id", metavar="ID", type=JOB_ID)
@click.argument("names", metavar="FRAMES", type=FRAMES)
@common
def kill(job_id: int, names: tuple[str, str]) -> None:
    """Stop running frames; they are WAITING again, or FAILED where that happened too often."""
    _show(job_id, asked().talk(lambda farm: farm.frame_kill(job_id, names[1], layer=names[0])))


@frame.command("requeue")
@click.argument("job_id", metavar="ID", type=JOB_ID)
@click.argument("names", metavar="FRAMES", type=FRAMES)
@click.option("--now", is_flag=True, help="Stop running ones at once, too.")
@common
def requeue(job_id: int, names: tuple[str, str], now: bool) -> None:
    """Render frames again; running ones once more after this run."""
    _show(job_id, asked().talk(lambda farm: farm.frame_requeue(job_id, names[1], layer=names[0], now=now)))


@frame.command("finish")
@click.argument("job_id", metavar="ID", type=JOB_ID)
@click.argument("names", metavar="FRAMES", type=FRAMES)
@common
def finish(job_id: int, names: tuple[str, str]) -> None:
    """Call frames DONE; running attempts at them are stopped."""
    _show(job_id, asked().talk(lambda farm: farm.frame_finish(job_id, names[1], layer=names[0])))


def _show(job_id: int, did: "Did") -> None:
    if asked().json:
        output.show_json({"id": job_id, "count": did.count, "note": did.note})
    else:
        say(did.note or f"{did.count} frame{'' if did.count == 1 else 's'}")
