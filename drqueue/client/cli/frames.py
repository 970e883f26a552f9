"""`drqueue frames`, `drqueue attempts` and `drqueue frame kill|requeue|finish|next|reset`."""

import time
from typing import TYPE_CHECKING, Any

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import FRAME, FRAMES, JOB_ID, Commands, asked, common, say
from drqueue.client.cli.output import Cell, Column, Table
from drqueue.client.cli.words import amount_text, ending, many, runs

if TYPE_CHECKING:
    from drqueue.client.asking import Did
    from drqueue.client.async_client import AsyncClient
    from drqueue.proto.views import AttemptView, FrameView

STATES = ("WAITING", "BLOCKED", "ASSIGNED", "RUNNING", "DONE", "FAILED", "CANCELLED")
_BATCH = 500
#: Parts of a frame range in one request, which has to fit into a packet.
_PARTS = 2000


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
        table, batch, found = _table(several), [], False
        async for view in pages:
            found = True
            batch.append(view)
            if len(batch) == _BATCH:
                output.show(table.lines([_row(each, several) for each in batch]))
                batch.clear()
        if batch:
            output.show(table.lines([_row(each, several) for each in batch]))
        if not found:
            say(f"job {job_id} has no frame that is {' or '.join(states)}" if states else "no frames")

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
        Column("NOTE", least=10, whole=True),
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
        Cell(note(view), below=view.state == "FAILED"),
    ]


def _to(view: "FrameView") -> str:
    return "-" if min(view.number, view.last) >= 0 else ".."


def note(view: "FrameView") -> str:
    """What else there is to say of a frame, in a few words."""
    if view.state == "RUNNING":
        parts = [output.percent(view.progress) if view.progress else "", view.activity]
        parts.append(f"({view.stop})" if view.stop else "")
        return " ".join(part for part in parts if part)
    if view.state == "DONE":
        return ""
    again = ""
    if view.requeued:
        again = (
            f"tried again {many(view.requeued, 'time')}"
            if view.state == "FAILED"
            else f"retry {view.requeued} to come"
        )
    back = f"came back {many(view.returned, 'time')}" if view.returned and view.state == "WAITING" else ""
    return ", ".join(part for part in (ending(view), again, back) if part)


@click.command(short_help="List the attempts at a frame.")
@click.argument("job_id", metavar="ID", type=JOB_ID)
@click.argument("name", metavar="FRAME", type=FRAME)
@common
def attempts(job_id: int, name: tuple[str, int]) -> None:
    """List every attempt at a frame (N or LAYER:N), oldest first; `log --attempt` shows the log of one.

    WAITED: from when it might have been assigned, had there been a place, until it was.
    """
    layer, number = name
    options = asked()
    found = options.talk(lambda farm: farm.attempts(job_id, number, layer=layer))
    if options.json:
        output.show_json(found)
        return
    if not found:
        say(f"frame {number} of job {job_id} has no attempt yet")
        return
    table = Table(
        Column("TRY", right=True),
        Column("OUTCOME"),
        Column("SLAVE", least=8),
        Column("CORES", right=True),
        Column("WAITED", right=True),
        Column("STARTED"),
        Column("TIME", right=True),
        Column("CPU", right=True),
        Column("MEM", right=True),
        Column("NOTE", least=10, whole=True),
    )
    output.show(table.lines([_attempt_row(view) for view in found]))


def _attempt_row(view: "AttemptView") -> list[Any]:
    bad = view.outcome == "failed"
    end = view.ended_at or time.time()
    waited = max(0.0, view.assigned_at - view.eligible_at) if view.eligible_at else None
    gpus = f"GPU {', '.join(map(str, view.gpus))}" if view.gpus else ""
    return [
        str(view.attempt),
        Cell(view.outcome or "running", {"": "cyan", "done": "green", "failed": "red"}.get(view.outcome, "")),
        view.slave,
        amount_text(view.cores),
        "" if waited is None else output.duration(waited),
        output.moment(view.started_at)[-8:],
        output.duration(max(0.0, end - view.started_at)) if view.started_at else "",
        output.duration(view.cpu_s) if view.cpu_s else "",
        output.memory(view.peak_mb) if view.peak_mb else "",
        Cell(", ".join(part for part in (ending(view), gpus) if part), below=bad),
    ]


@click.group(cls=Commands, short_help="Kill, requeue, finish, reset or hurry frames.")
def frame() -> None:
    """Kill, requeue, finish, reset or hurry frames; FRAMES is a range, or LAYER:RANGE."""


@frame.command("kill")
@click.argument("job_id", metavar="ID", type=JOB_ID)
@click.argument("names", metavar="FRAMES", type=FRAMES)
@common
def kill(job_id: int, names: tuple[str, str]) -> None:
    """Stop running frames; they are WAITING again, or FAILED where that happened too often."""
    _show(job_id, asked().talk(lambda farm: farm.frame_kill(job_id, names[1], layer=names[0])))


@frame.command("requeue")
@click.argument("job_id", metavar="ID", type=JOB_ID)
@click.argument("names", metavar="[FRAMES]", type=FRAMES, required=False)
@click.option("--now", is_flag=True, help="Stop running ones at once, too.")
@click.option(
    "--state",
    "states",
    type=click.Choice(STATES, case_sensitive=False),
    multiple=True,
    help="All frames in this state, in place of FRAMES; repeatable.",
)
@common
def requeue(job_id: int, names: tuple[str, str] | None, now: bool, states: tuple[str, ...]) -> None:
    """Render frames again; running ones once more after this run."""
    if (names is None) == (not states):
        raise click.UsageError("name either FRAMES or a --state")
    if names is not None:
        _show(
            job_id, asked().talk(lambda farm: farm.frame_requeue(job_id, names[1], layer=names[0], now=now))
        )
        return

    async def use(farm: "AsyncClient") -> "Did":
        from drqueue.client.asking import Did

        numbers: dict[str, list[int]] = {}
        async for view in farm.each_frame(job_id, states=states):
            numbers.setdefault(view.layer_name, []).append(view.number)
        count = 0
        for layer, found in numbers.items():
            parts = runs(found)
            for first in range(0, len(parts), _PARTS):
                did = await farm.frame_requeue(
                    job_id, ",".join(parts[first : first + _PARTS]), layer=layer, now=now
                )
                count += did.count
        return Did(count)

    _show(job_id, asked().talk(use))


@frame.command("finish")
@click.argument("job_id", metavar="ID", type=JOB_ID)
@click.argument("names", metavar="FRAMES", type=FRAMES)
@click.option("--running", is_flag=True, help="Only those of them that are running.")
@common
def finish(job_id: int, names: tuple[str, str], running: bool) -> None:
    """Call frames DONE; running attempts at them are stopped."""
    _show(
        job_id,
        asked().talk(lambda farm: farm.frame_finish(job_id, names[1], layer=names[0], running=running)),
    )


@frame.command("next")
@click.argument("job_id", metavar="ID", type=JOB_ID)
@click.argument("names", metavar="FRAMES", type=FRAMES)
@common
def go_next(job_id: int, names: tuple[str, str]) -> None:
    """Let frames that wait go before all others of their layer; those named first go first."""
    _show(job_id, asked().talk(lambda farm: farm.frame_next(job_id, names[1], layer=names[0])))


@frame.command("reset")
@click.argument("job_id", metavar="ID", type=JOB_ID)
@click.argument("names", metavar="FRAMES", type=FRAMES)
@common
def reset(job_id: int, names: tuple[str, str]) -> None:
    """Count failures and requeues of frames anew: they have all their retries again."""
    _show(job_id, asked().talk(lambda farm: farm.frame_reset_requeued(job_id, names[1], layer=names[0])))


def _show(job_id: int, did: "Did") -> None:
    if asked().json:
        output.show_json({"id": job_id, "count": did.count, "note": did.note})
    else:
        say("; ".join(part for part in (many(did.count, "frame"), did.note) if part))
