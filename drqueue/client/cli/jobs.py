"""`drqueue jobs`, `job`, the verbs on whole jobs, and `set`."""

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import JOB_ID, asked, common, say
from drqueue.client.cli.output import Cell, Column, Table

if TYPE_CHECKING:
    from drqueue.client.async_client import AsyncClient, Did
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
    table = Table(
        Column("ID", right=True),
        Column("NAME", least=8),
        Column("OWNER", least=5),
        Column("STATE"),
        Column("PRIO", right=True),
        Column("PROGRESS"),
        Column("RUN", right=True),
        Column("FAIL", right=True),
        Column("ETA", right=True),
    )
    return table.lines(
        (
            str(view.id),
            view.name,
            view.owner,
            output.state(view.state, bad=view.counts.failed > 0 and view.state == "FINISHED"),
            str(view.priority),
            f"{output.bar(output.part(view), 6)} {output.percent(output.part(view)):>4}",
            str(view.counts.running + view.counts.assigned),
            Cell(str(view.counts.failed), "red" if view.counts.failed else ""),
            eta(view),
        )
        for view in views
    )


def eta(view: "JobView") -> str:
    """The time that is left, "-" where nothing can be said."""
    if view.state == "FINISHED" or not view.eta_at:
        return "-"
    return output.duration(max(0.0, view.eta_at - time.time()))


@click.command(short_help="Show one job.")
@click.argument("job_id", metavar="ID", type=JOB_ID)
@common
def job(job_id: int) -> None:
    """Show one job and its layers."""
    options = asked()
    view, layers = options.talk(lambda farm: farm.job(job_id))
    if options.json:
        output.show_json({**output.plain(view), "layers": layers})
        return
    output.show(_job_lines(view))
    for layer in layers:
        print()
        output.show(_layer_lines(layer))


def _job_lines(view: "JobView") -> list[str]:
    depends = ", ".join(f"{each.job}{'' if each.until == 'done' else ' (ended)'}" for each in view.depends)
    return output.fields(
        (
            ("job", str(view.id)),
            ("name", view.name),
            ("owner", view.owner),
            ("project", view.project),
            ("state", output.state(view.state, bad=view.counts.failed > 0 and view.state == "FINISHED")),
            ("waits for", view.waits_for),
            ("priority", str(view.priority)),
            ("pool", view.pool),
            ("progress", f"{output.bar(output.part(view), 20)} {output.percent(output.part(view))}"),
            ("frames", counts_text(view.counts)),
            ("time left", eta(view).replace("-", "")),
            ("mean frame", output.duration(view.mean_frame_s) if view.mean_frame_s else ""),
            ("CPU time", output.duration(view.cpu_s) if view.cpu_s else ""),
            ("submitted", output.moment(view.submitted_at)),
            ("started", output.moment(view.started_at)),
            ("finished", output.moment(view.finished_at)),
            ("not before", output.moment(view.not_before)),
            ("depends on", depends),
            ("max running", str(view.max_running or "")),
            ("max per slave", str(view.max_per_slave or "")),
            ("blocked on", ", ".join(view.blocked_hosts)),
            ("unreachable", view.on_unreachable if view.on_unreachable != "lease" else ""),
        )
    )


def _layer_lines(layer: "LayerView") -> list[str]:
    needs = [f"{layer.needs.cores} core{'s' if layer.needs.cores > 1 else ''}"]
    if layer.needs.memory_mb:
        needs.append(output.memory(layer.needs.memory_mb))
    return output.fields(
        (
            ("layer", Cell(layer.name, "bold")),
            ("command", layer.command),
            ("range", f"{layer.frames}{f' in chunks of {layer.chunk}' if layer.chunk > 1 else ''}"),
            ("frames", counts_text(layer.counts)),
            ("needs", ", ".join([*needs, *layer.needs.os])),
            ("retries", str(layer.retries)),
            ("time limit", output.duration(layer.timeout_s) if layer.timeout_s else ""),
            ("cwd", layer.cwd),
            ("outputs", ", ".join(layer.outputs)),
            ("after", ", ".join(layer.after)),
        )
    )


def counts_text(counts: Any) -> str:
    """`24: 12 done, 2 running, 10 waiting`."""
    names = ("done", "running", "assigned", "waiting", "blocked", "failed", "cancelled")
    parts = [f"{getattr(counts, name)} {name}" for name in names if getattr(counts, name)]
    return f"{counts.total}: {', '.join(parts)}" if parts else str(counts.total)


# -- verbs ------------------------------------------------------------------------------------------------


def _verb(name: str, summary: str, tell: "Callable[[AsyncClient, int], Awaitable[Did]]") -> click.Command:
    @click.command(name, help=summary, short_help=summary)
    @click.argument("job_ids", metavar="ID ...", type=JOB_ID, nargs=-1, required=True)
    @common
    def verb(job_ids: tuple[int, ...]) -> int:
        return each_job(job_ids, tell)

    return verb


def each_job(job_ids: tuple[int, ...], tell: "Callable[[AsyncClient, int], Awaitable[Did]]") -> int:
    """Do something to every job named, all of them even where one is refused; the worst exit status."""
    from drqueue.client.cli.main import complain_about
    from drqueue.client.errors import Refused

    options = asked()

    async def use(farm: "AsyncClient") -> int:
        status, said = 0, []
        for job_id in job_ids:
            try:
                did = await tell(farm, job_id)
            except Refused as error:
                status = max(status, complain_about(error))
                continue
            said.append({"id": job_id, "count": did.count, "note": did.note})
            if did.note:
                say(did.note)
        if options.json:
            output.show_json(said)
        return status

    return options.talk(use)


stop = _verb(
    "stop", "Start no more frames of jobs; running ones end normally.", lambda farm, job_id: farm.stop(job_id)
)
hard_stop = _verb(
    "hard-stop", "Stop jobs and end their running frames.", lambda farm, job_id: farm.hard_stop(job_id)
)
continue_ = _verb("continue", "Let stopped jobs go on.", lambda farm, job_id: farm.continue_(job_id))
rerun = _verb("rerun", "Render all frames of jobs again.", lambda farm, job_id: farm.rerun(job_id))
delete = _verb("delete", "End jobs and forget them.", lambda farm, job_id: farm.delete(job_id))


# -- set --------------------------------------------------------------------------------------------------


@click.command("set", short_help="Change a job's priority, range or limits.")
@click.argument("job_id", metavar="ID", type=JOB_ID)
@click.option("--name", help="Its name.")
@click.option("--priority", type=click.IntRange(0, 2**32 - 1), metavar="P", help="Higher first.")
@click.option("--pool", help="Slaves of this pool only.")
@click.option(
    "--max-running", type=click.IntRange(0), metavar="N", help="Frames that may run at once; 0: any."
)
@click.option("--max-per-slave", type=click.IntRange(0), metavar="N", help="The same, on one slave.")
@click.option("--on-unreachable", type=click.Choice(["lease", "hold", "requeue-fast"]))
@click.option(
    "--depend", "depends", type=JOB_ID, multiple=True, metavar="ID", help="Wait for these jobs alone."
)
@click.option("--no-depend", is_flag=True, help="Wait for no job.")
@click.option("--block", multiple=True, metavar="HOST", help="Not on this host or slave; repeatable.")
@click.option("--unblock", multiple=True, metavar="HOST", help="On this host or slave again; repeatable.")
@click.option("--layer", metavar="NAME", help="The layer that the following change; default: the first.")
@click.option("--frames", metavar="RANGE", help="The layer's frame range.")
@click.option("--chunk", type=click.IntRange(1), metavar="N", help="Frames of one attempt.")
@click.option("--retries", type=click.IntRange(0), metavar="N", help="Tries after a failed one.")
@click.option("--cores", type=click.IntRange(1), metavar="N", help="Cores of one attempt.")
@click.option("--memory", type=click.IntRange(0), metavar="MB", help="Memory of one attempt.")
@common
def set_job(job_id: int, cores: int | None, memory: int | None, no_depend: bool, **given: Any) -> None:
    """Change a job while it lives; what is not named stays as it is."""
    import msgspec

    from drqueue.proto.model import Depend, JobChange

    wanted: dict[str, Any] = {name: value for name, value in given.items() if value not in (None, ())}
    if "depends" in wanted or no_depend:
        wanted["depends"] = tuple(Depend(job=number) for number in given["depends"])
    if set(wanted) <= {"layer"} and cores is None and memory is None:
        raise click.UsageError("nothing to change was named")
    options = asked()

    async def use(farm: "AsyncClient") -> "Did":
        if cores is not None or memory is not None:
            layers = (await farm.job(job_id))[1]
            layer = next((each for each in layers if each.name == wanted.get("layer", each.name)), layers[0])
            needs = {"cores": cores, "memory_mb": memory}
            wanted["needs"] = msgspec.structs.replace(
                layer.needs, **{key: value for key, value in needs.items() if value is not None}
            )
        return await farm.change_job(job_id, JobChange(**wanted))

    did = options.talk(use)
    if options.json:
        output.show_json({"id": job_id, "count": did.count, "note": did.note})
    elif did.note:
        say(did.note)
