"""`drqueue jobs`, `job`, and the verbs on whole jobs."""

import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import JOB_ID, asked, common, say
from drqueue.client.cli.jobtext import job_lines, layer_lines
from drqueue.client.cli.output import Cell, Column, Table
from drqueue.client.cli.words import many, told_failures

if TYPE_CHECKING:
    from drqueue.client.asking import Did
    from drqueue.client.async_client import AsyncClient
    from drqueue.proto.model import JobSpec
    from drqueue.proto.views import JobView, LayerView


@click.command(short_help="List jobs.")
@click.option("--all", "every", is_flag=True, help="Finished ones, too.")
@click.option("--owner", metavar="NAME", default="", help="One owner's only.")
@common
def jobs(every: bool, owner: str) -> None:
    """List jobs that are not finished."""
    options = asked()
    found = options.talk(lambda farm: farm.jobs(all=every, owner=owner))
    if options.json:
        output.show_json(found)
    elif found:
        output.show(job_table(found))
    else:
        say("no jobs" if every else "no jobs that are not finished (--all shows those, too)")


def job_table(views: "tuple[JobView, ...]") -> list[str]:
    """Jobs as a table."""
    # Most lists have none, and a narrow screen has no room to spare.
    cancelled = any(view.counts.cancelled for view in views)
    table = Table(
        Column("ID", right=True),
        Column("NAME", least=8),
        Column("OWNER", least=5),
        Column("STATE"),
        Column("PRIO", right=True),
        Column("PROGRESS"),
        Column("RUN", right=True),
        Column("FAIL", right=True),
        *([Column("CANC", right=True)] if cancelled else []),
        Column("ETA", right=True),
    )
    return table.lines(
        (
            str(view.id),
            view.name,
            view.owner,
            output.job_state(view),
            str(view.priority),
            f"{output.bar(output.part(view), 5)} {output.percent(output.part(view)):>4}",
            str(view.counts.running + view.counts.assigned),
            _bad(view.counts.failed),
            *([_bad(view.counts.cancelled)] if cancelled else []),
            output.time_left(view),
        )
        for view in views
    )


def _bad(number: int) -> Cell:
    return Cell(str(number), "red" if number else "")


@click.command(short_help="Show one job.")
@click.argument("job_id", metavar="ID", type=JOB_ID)
@click.option("--tree", is_flag=True, help="What it and its layers wait for, and who waits for it.")
@common
def job(job_id: int, tree: bool) -> None:
    """Show one job and its layers.

    With --json, `spec` is the job as it was submitted, with all that was changed since; viewers get none.
    """
    from drqueue.client.errors import NotAllowed
    from drqueue.proto.messages import GetSpec
    from drqueue.proto.roles import may_ask

    options = asked()
    if tree:
        from drqueue.client.cli import jobtree

        found = jobtree.tree(options.talk(lambda farm: jobtree.gather(farm, job_id)), job_id)
        if options.json:
            output.show_json(found)
        else:
            output.show(jobtree.tree_lines(found))
        return

    async def use(farm: "AsyncClient") -> "tuple[JobView, tuple[LayerView, ...], JobSpec | None, list[str]]":
        view, layers = await farm.job(job_id)
        spec = None
        # What is refused stands in the audit.
        if may_ask((await farm.whoami()).role, GetSpec(rq=0, job=job_id)):
            with suppress(NotAllowed):
                spec = await farm.spec(job_id)
        failed = [] if options.json else await told_failures(farm, view, several=len(layers) > 1)
        return view, layers, spec, failed

    view, layers, spec, failed = options.talk(use)
    if options.json:
        output.show_json({**output.plain(view), "layers": layers, "spec": spec})
        return
    output.show(job_lines(view, spec, failed))
    specs = (None,) * len(layers) if spec is None else spec.layers
    for layer, layer_spec in zip(layers, specs, strict=True):
        print()
        output.show(layer_lines(layer, layer_spec))


# -- verbs ------------------------------------------------------------------------------------------------


Tell = Callable[["AsyncClient", int], Awaitable["Did"]]
#: What a verb did, from what the job was before, and how many things it touched.
Words = Callable[["JobView", int], str]


def _verb(name: str, summary: str, tell: Tell, words: Words) -> click.Command:
    @click.command(name, help=summary, short_help=summary)
    @click.argument("job_ids", metavar="ID ...", type=JOB_ID, nargs=-1, required=True)
    @common
    def verb(job_ids: tuple[int, ...]) -> int:
        return each_job(job_ids, tell, words)

    return verb


def each_job(job_ids: tuple[int, ...], tell: Tell, words: Words) -> int:
    """Do something to every job named, all of them even where one is refused; the worst exit status.

    What was done is said on a terminal only: a script has the exit status, and --json the count.
    """
    from drqueue.client.cli.main import complain_about
    from drqueue.client.errors import Refused

    options = asked()
    people = sys.stderr.isatty() and not options.json

    async def use(farm: "AsyncClient") -> int:
        status, said = 0, []
        for job_id in job_ids:
            try:
                before = (await farm.job(job_id))[0] if people else None
                did = await tell(farm, job_id)
            except Refused as error:
                status = max(status, complain_about(error))
                continue
            said.append({"id": job_id, "count": did.count, "note": did.note})
            line = f"job {job_id} {words(before, did.count)}" if before is not None else ""
            if line or did.note:
                say("; ".join(part for part in (line, did.note) if part))
        if options.json:
            output.show_json(said)
        return status

    return options.talk(use)


_FINISHED = "is finished already, nothing to stop"


def _stopped(view: "JobView", count: int) -> str:
    if view.state == "FINISHED":
        return _FINISHED
    running = view.counts.running + view.counts.assigned
    end = f"; {many(running, 'running frame')} will end normally" if running else ""
    return ("is stopped already" if view.state == "STOPPED" else "stopped") + end


def _hard_stopped(view: "JobView", count: int) -> str:
    if view.state == "FINISHED":
        return _FINISHED
    return "stopped" + (f", {many(count, 'running frame')} ended" if count else "")


def _goes_on(view: "JobView", count: int) -> str:
    if view.state == "FINISHED":
        return "is finished already; requeued frames will run"
    return "goes on" if view.state == "STOPPED" else "was not stopped"


def _rerun(view: "JobView", count: int) -> str:
    return f"renders {'its frame' if view.counts.total == 1 else f'all its {view.counts.total} frames'} again"


def _deleted(view: "JobView", count: int) -> str:
    return "deleted" + (f", {many(count, 'running frame')} ended" if count else "")


stop = _verb(
    "stop",
    "Start no more frames of jobs; running ones end normally.",
    lambda farm, job_id: farm.stop(job_id),
    _stopped,
)
hard_stop = _verb(
    "hard-stop",
    "Stop jobs and end their running frames.",
    lambda farm, job_id: farm.hard_stop(job_id),
    _hard_stopped,
)
continue_ = _verb(
    "continue", "Let stopped jobs go on.", lambda farm, job_id: farm.continue_(job_id), _goes_on
)
rerun = _verb("rerun", "Render all frames of jobs again.", lambda farm, job_id: farm.rerun(job_id), _rerun)
delete = _verb("delete", "End jobs and forget them.", lambda farm, job_id: farm.delete(job_id), _deleted)
