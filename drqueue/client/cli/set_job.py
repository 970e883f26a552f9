"""`drqueue set`."""

import sys
from typing import TYPE_CHECKING, Any

import click

from drqueue.client.cli import output
from drqueue.client.cli.common import JOB_ID, NATURAL, POSITIVE, PRIORITY, asked, common, say
from drqueue.client.cli.options import ANY_DEPEND, LIMIT, Grouped, need_options, needs_given

if TYPE_CHECKING:
    from drqueue.client.asking import Did
    from drqueue.client.async_client import AsyncClient
    from drqueue.proto.model import Depend, LayerDepend
    from drqueue.proto.views import JobView, LayerView


@click.command(
    "set",
    cls=Grouped,
    short_help="Change a job's priority, range or limits.",
    headings={
        "name": "The job",
        "depends": "What it waits for",
        "layer": "One layer",
        "cores": "What an attempt of that layer needs",
        "json": "Options",
    },
)
@click.argument("job_id", metavar="ID", type=JOB_ID)
@click.option("--name", help="Its name.")
@click.option("--priority", type=PRIORITY, metavar="P", help="Higher first.")
@click.option("--pool", help="Slaves of this pool only.")
@click.option("--project", help="The project it belongs to.")
@click.option("--max-running", type=NATURAL, metavar="N", help="Frames that may run at once; 0: any.")
@click.option("--max-per-slave", type=NATURAL, metavar="N", help="The same, on one slave.")
@click.option(
    "--max-failures", type=NATURAL, metavar="N", help="Stop it after so many failed attempts; 0: never."
)
@click.option(
    "--on-unreachable",
    type=click.Choice(["lease", "hold", "requeue-fast"]),
    help="What becomes of frames on a slave that is out of reach.",
)
@click.option("--block", multiple=True, metavar="HOST", help="Not on this host or slave; repeatable.")
@click.option("--unblock", multiple=True, metavar="HOST", help="On this host or slave again; repeatable.")
@click.option(
    "--depend",
    "depends",
    type=ANY_DEPEND,
    multiple=True,
    metavar="ID|LAYER",
    help="Wait for that, too, as 12, 12/render:50%, sim:each; repeatable.",
)
@click.option(
    "--undepend",
    "undepends",
    type=ANY_DEPEND,
    multiple=True,
    metavar="ID|LAYER",
    help="Wait for that no more; repeatable.",
)
@click.option("--no-depend", is_flag=True, help="Wait for no other job than those of --depend.")
@click.option("--layer", metavar="NAME", help="The layer that the following change; default: the first.")
@click.option("--frames", metavar="RANGE", help="The layer's frame range.")
@click.option("--chunk", type=POSITIVE, metavar="N", help="Frames of one attempt.")
@click.option("--retries", type=NATURAL, metavar="N", help="Tries after a failed one.")
@click.option("--order", help="forward, reverse, coarse, or the frames that come first.")
@click.option("--next", metavar="RANGE", help="Frames that go before all others; '' for none.")
@click.option(
    "--limit",
    "limits",
    type=LIMIT,
    multiple=True,
    metavar="NAME[=N]",
    help="How much of a limit an attempt takes, 0 for none of it; repeatable.",
)
@need_options
@common
def set_job(job_id: int, **given: Any) -> None:
    """Change a job while it lives; what is not named stays as it is.

    --os, --tag and --or replace all there were, --need and --limit what has that name. An empty value, as in
    --tag '', stands for none.
    """
    from drqueue.proto.model import JobChange

    needs = needs_given(given)
    depends, undepends = given.pop("depends"), given.pop("undepends")
    no_depend, limits = given.pop("no_depend"), dict(given.pop("limits"))
    wanted: dict[str, Any] = {name: value for name, value in given.items() if value not in (None, ())}
    waits = bool(depends or undepends or no_depend)
    if wanted.keys() <= {"layer"} and not (needs or limits or waits):
        raise click.UsageError("nothing to change was named")
    options = asked()

    async def use(farm: "AsyncClient") -> "Did":
        if needs or limits or waits:
            view, layers = await farm.job(job_id)
            # What no layer is called the master says.
            layer = next((each for each in layers if each.name == wanted.get("layer", each.name)), layers[0])
            if needs:
                wanted["needs"] = _needs(layer, needs)
            if limits:
                wanted["limits"] = {name: n for name, n in {**layer.limits, **limits}.items() if n}
            if waits:
                wanted.update(_waits(view, layer, depends, undepends, no_depend))
        return await farm.change_job(job_id, JobChange(**wanted))

    did = options.talk(use)
    if options.json:
        output.show_json({"id": job_id, "count": did.count, "note": did.note})
    elif did.note or sys.stderr.isatty():
        say("; ".join(part for part in (f"job {job_id} changed", did.note) if part))


def _needs(layer: "LayerView", given: dict[str, Any]) -> Any:
    import msgspec

    if "amounts" in given:
        amounts = {**layer.needs.amounts, **given["amounts"]}
        given = {**given, "amounts": {name: amount for name, amount in amounts.items() if amount}}
    return msgspec.structs.replace(layer.needs, **given)


def _waits(
    job: "JobView",
    layer: "LayerView",
    depends: "tuple[Depend | LayerDepend, ...]",
    undepends: "tuple[Depend | LayerDepend, ...]",
    no_depend: bool,
) -> dict[str, Any]:
    """What the job, and what its layer, waits for from now on, where that is another than now."""
    from drqueue.client.depend_text import depend_text
    from drqueue.proto.model import Depend

    of_job = list(job.depends)
    of_layer = list(layer.depends)
    after = list(layer.after)
    if no_depend:
        of_job, of_layer = [], [each for each in of_layer if each.job is None]
    for gone in undepends:
        places = len(of_job) + len(of_layer) + len(after)
        of_job = [each for each in of_job if not _meant(gone, each)]
        of_layer = [each for each in of_layer if not _meant(gone, each)]
        if gone.job is None and gone.frames == "all":
            after = [name for name in after if name != gone.layer]
        if len(of_job) + len(of_layer) + len(after) == places:
            raise click.UsageError(f"it does not wait for {depend_text(gone)}")
    for depend in depends:
        if isinstance(depend, Depend):
            of_job += [depend] if depend not in of_job else []
        else:
            of_layer += [depend] if depend not in of_layer else []
    fields = {
        "depends": (tuple(of_job), job.depends),
        "layer_depends": (tuple(of_layer), layer.depends),
        "after": (tuple(after), layer.after),
    }
    # --no-depend is a wish, even where there is nothing to change.
    return {
        name: new for name, (new, old) in fields.items() if new != old or (no_depend and name == "depends")
    }


def _meant(gone: "Depend | LayerDepend", depend: "Depend | LayerDepend") -> bool:
    """Whether --undepend means that: the same job and layer; which frames of it need not be said."""
    if gone.frames == "previous" or depend.frames == "previous":
        return gone.frames == depend.frames
    if (gone.job, gone.layer) != (depend.job, depend.layer):
        return False
    return gone.frames == "all" or (gone.frames == depend.frames and gone.until == depend.until)
