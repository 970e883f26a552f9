"""`drqueue submit`."""

import os
import sys
from collections import Counter
from typing import Any

import click

from drqueue.client.cli.common import (
    DURATION,
    NATURAL,
    PAIR,
    POSITIVE,
    PRIORITY,
    KindMistake,
    asked,
    common,
    say,
)
from drqueue.client.cli.options import DEPEND, LIMIT, Grouped, need_options, needs_given

GENERAL = "general"
#: A single word that holds one of these is a string for the shell.
SHELL_CHARACTERS = frozenset("|&;<>()$`\"'*?[~")
#: Options of one layer, as parameters are called; a file has them in its [[layer]] tables.
_LAYER_OPTIONS = (
    *("frames", "chunk", "retries", "timeout", "cwd", "output", "order", "next", "limit", "previous"),
    *(
        "cores",
        "memory",
        "gpus",
        "gpu_memory",
        "disk",
        "amounts",
        "os_names",
        "tags",
        "where",
        "alternatives",
    ),
)


@click.command(
    cls=Grouped,
    short_help="Queue a job and print its id.",
    context_settings={"allow_interspersed_args": False},
    headings={
        "name": "The job",
        "frames": "Its frames",
        "cores": "What an attempt needs",
        "depend": "What it waits for, and how much of it may run",
        "kind": "In place of a command",
        "wait": "Options",
    },
)
@click.option("--name", "-n", help="The job's name; default: the command's.")
@click.option("--priority", "-p", type=PRIORITY, metavar="P", help="Higher first (default 500).")
@click.option("--project", help="The project it belongs to.")
@click.option("--pool", help="Slaves of this pool only (default Default).")
@click.option("--env", type=PAIR, multiple=True, metavar="K=V", help="Environment of the frames; repeatable.")
@click.option("--cwd", metavar="D", help="Where the command runs, or `scratch`; default: here.")
@click.option(
    "--on-unreachable",
    type=click.Choice(["lease", "hold", "requeue-fast"]),
    help="What becomes of frames on a slave that is out of reach (default lease).",
)
@click.option("--stopped", is_flag=True, default=None, help="Queue it stopped.")
@click.option(
    "--frames", "-f", metavar="RANGE", help="Frame range, as 1-100, 1-100x2 or 1,5,7-9 (default 1)."
)
@click.option("--chunk", type=POSITIVE, metavar="N", help="Frames of one attempt (default 1).")
@click.option("--order", help="forward, reverse, coarse (the ends, then the middles), or the first frames.")
@click.option("--next", metavar="RANGE", help="Frames that go before all others.")
@click.option("--retries", type=NATURAL, metavar="N", help="Tries after a failed one (default 3).")
@click.option(
    "--timeout", type=DURATION, metavar="S", help="Seconds that one attempt may take, or as 90s, 15m or 1h."
)
@click.option(
    "--output", multiple=True, metavar="PATTERN", help="File that every frame must make; repeatable."
)
@need_options
@click.option(
    "--depend",
    type=DEPEND,
    multiple=True,
    metavar="ID",
    help="Wait until that job is done, or as 12:ended, 12:50%, 12/render, 12:each; repeatable.",
)
@click.option("--previous", is_flag=True, help="Each frame waits until the one before it is done.")
@click.option(
    "--limit",
    type=LIMIT,
    multiple=True,
    metavar="NAME[=N]",
    help="An attempt takes one, or N, of that limit; repeatable.",
)
@click.option("--max-running", type=NATURAL, metavar="N", help="Frames that may run at once.")
@click.option("--max-per-slave", type=NATURAL, metavar="N", help="The same, on one slave.")
@click.option("--max-failures", type=NATURAL, metavar="N", help="Stop it after so many failed attempts.")
@click.option(
    "--kind", metavar="K", default="general", show_default=True, help="Kind of job, see drqueue kinds."
)
@click.option(
    "--set", "settings", type=PAIR, multiple=True, metavar="k=v", help="Parameter of the kind; repeatable."
)
@click.option("--file", "path", type=click.Path(), metavar="JOB.toml", help="Read the job from a file.")
@click.option("--wait", is_flag=True, help="Stay until it is finished.")
@common
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND ...]")
def submit(command: tuple[str, ...], path: str | None, wait: bool, **given: Any) -> int:
    """Queue a job: a COMMAND over a frame range, what a kind makes of its parameters, or what JOB.toml says.

    The words after -- are the command's argv; {frame}, {frame:04d}, {start}, {end}, {step} and {frames}
    in them are filled in. A single word that holds a blank or a shell character is a string for the shell.
    """
    from drqueue.client.cli.output import show_json
    from drqueue.client.cli.wait import follow, jobs_go_on

    kind, settings = given.pop("kind"), given.pop("settings")
    if path is not None:
        if settings or kind != GENERAL:
            raise click.UsageError(f"--kind and --set are a layer's: write kind and params into {path}")
        spec = _from_file(path, command, given)
    elif settings or kind != GENERAL:
        spec = _from_kind(kind, settings, command, given)
    else:
        spec = _from_words(command, given)
    options = asked()
    submitted: list[int] = []

    async def use(farm: Any) -> int:
        job: int = await farm.submit(spec, note=say, warn=_warn)
        submitted.append(job)
        if not (options.json and wait):
            show_json({"id": job}) if options.json else print(job, flush=True)
        return await follow(farm, (job,), as_json=options.json, quiet=True) if wait else 0

    with jobs_go_on(submitted):
        return options.talk(use)


def _warn(text: str) -> None:
    from drqueue.client.cli.output import wrapped

    line = f"drqueue: warning: {text}"
    first, *rest = wrapped(line, "  ") if sys.stderr.isatty() else (line,)
    for each in (first.lstrip(), *rest):
        say(each)


def _from_words(command: tuple[str, ...], given: dict[str, Any]) -> Any:
    from drqueue.proto.model import LayerSpec

    if not command:
        raise click.UsageError("a command is missing: drqueue submit [OPTIONS] -- COMMAND ...")
    argv, shell = split_command(command)
    frames = _given({"frames": given["frames"], "chunk": given["chunk"]})
    return _job(LayerSpec(argv=argv, shell=shell, **frames), default_name(command), given)


def _from_kind(
    kind: str, settings: tuple[tuple[str, str], ...], command: tuple[str, ...], given: dict[str, Any]
) -> Any:
    from drqueue.client.kinds import Frames, KindError, find

    if command:
        raise click.UsageError("either a kind's parameters (--set) or a COMMAND, not both")
    params = dict(settings)
    for name, count in Counter(name for name, _ in settings).items():
        if count > 1:
            raise click.UsageError(f"--set {name}= is given {count} times")
    frames = Frames(given["frames"], given["chunk"])
    try:
        frames.range()
    except KindError as error:  # a range is nothing that a kind could explain
        raise click.UsageError(str(error)) from None
    known = ""
    try:
        found = find(kind)
        known = found.name
        layer = found.build(params, frames)
        texts = found.texts(params)
    except KindError as error:
        raise KindMistake(str(error), known) from None
    made_of = {"kind": found.name, "params": texts}
    return _job(layer, found.default_job_name(texts), given, **made_of)


def _job(layer: Any, name: str, given: dict[str, Any], **fields: Any) -> Any:
    """The job of one layer, what the options say of it filled in."""
    import msgspec

    from drqueue.client.specs import login_name
    from drqueue.proto.model import JobSpec, LayerDepend, Needs

    waits = [depend for depend in given["depend"] if isinstance(depend, LayerDepend)]
    if given["previous"]:
        waits.append(LayerDepend(frames="previous"))
    of_layer = {
        "retries": given["retries"],
        "timeout_s": given["timeout"],
        "outputs": layer.outputs + given["output"] or None,
        "cwd": directory(given["cwd"]),
        "needs": Needs(**needs_given(given)),
        "depends": tuple(waits) or None,
        "order": given["order"],
        "next": given["next"],
        "limits": _limits(given["limit"]) or None,
    }
    return JobSpec(
        name=given["name"] or name,
        layers=(msgspec.structs.replace(layer, **_given(of_layer)),),
        owner=login_name(),
        **fields,
        **_job_fields(given),
    )


def _from_file(path: str, command: tuple[str, ...], given: dict[str, Any]) -> Any:
    import msgspec

    from drqueue.client.jobfile import JobFileError, read_job_file
    from drqueue.client.specs import login_name
    from drqueue.proto.model import LayerDepend

    if command:
        raise click.UsageError("either --file or a COMMAND, not both")
    for option in click.get_current_context().command.params:
        if option.name in _LAYER_OPTIONS and given[option.name] not in (None, (), False):
            raise click.UsageError(f"{option.opts[0]} is a layer's: write it into a [[layer]] of {path}")
    if any(isinstance(depend, LayerDepend) for depend in given["depend"]):
        raise click.UsageError(f"--depend ID:each is a layer's: write it into a [[layer]] of {path}")
    try:
        spec = read_job_file(path, cwd=directory(None), owner=login_name())
    except JobFileError as error:
        if error.kind is not None:
            raise KindMistake(str(error), error.kind) from None
        raise click.UsageError(str(error)) from None
    changes = _job_fields(given)
    if given["name"]:
        changes["name"] = given["name"]
    if "env" in changes:
        changes["env"] = {**spec.env, **changes["env"]}
    return msgspec.structs.replace(spec, **changes)


def _job_fields(given: dict[str, Any]) -> dict[str, Any]:
    """The job's own fields among the options given, as JobSpec calls them."""
    from drqueue.proto.model import Depend

    fields = {
        "priority": given["priority"],
        "pool": given["pool"],
        "project": given["project"],
        "env": dict(given["env"]) or None,
        "depends": tuple([each for each in given["depend"] if isinstance(each, Depend)]) or None,
        "max_running": given["max_running"],
        "max_per_slave": given["max_per_slave"],
        "max_failures": given["max_failures"],
        "on_unreachable": given["on_unreachable"],
        "stopped": given["stopped"],
    }
    return _given(fields)


def _limits(given: tuple[tuple[str, int], ...]) -> dict[str, int]:
    """How much of each limit; one that is named twice is taken twice."""
    limits: Counter[str] = Counter()
    for name, units in given:
        if not units:
            raise click.UsageError(f"--limit {name}=0 takes nothing: leave it out")
        limits[name] += units
    return dict(limits)


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def split_command(words: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """(argv, ""), or ((), string for the shell) for a single word that only a shell understands."""
    if len(words) == 1 and any(char.isspace() or char in SHELL_CHARACTERS for char in words[0]):
        return (), words[0]
    return words, ""


def default_name(words: tuple[str, ...]) -> str:
    """What a job is called that was given no name: its program."""
    from drqueue.client.specs import program_of

    program = os.path.basename(words[0]) if split_command(words)[0] else program_of(words[0])
    return "".join(char for char in program if char.isprintable())[:127] or "job"


def directory(given: str | None) -> str:
    """The working directory as an absolute path; default: this one, by the name it was entered under."""
    from drqueue.client.errors import BadRequest
    from drqueue.client.specs import working_directory

    if given == "scratch":
        return given
    try:
        here = working_directory()
    except BadRequest as error:
        raise click.UsageError(str(error)) from None
    if given is None:
        return here
    path = os.path.join(here, os.path.expanduser(given))
    # `a/../b` is not `b` where a is a link.
    return path if ".." in path.split("/") else os.path.normpath(path)
