"""What `drqueue job` shows to people: a job as it stands and as it was given, and its layers."""

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from drqueue.client.cli import output
from drqueue.client.cli.output import Cell
from drqueue.client.cli.words import bad_ending, many

if TYPE_CHECKING:
    from drqueue.proto.model import Alternative, JobSpec, LayerSpec, Needs
    from drqueue.proto.views import JobView, LayerView

#: In place of a command.
NOT_SHOWN = "(not shown to viewers)"
#: Lines that a command may take, for what calls a renderer often stands below two lines of its script;
#: those of a parameter's value, or of variables.
_COMMAND_LINES = 4
_LINES = 3
#: Parameters and variables that are shown, and columns of each of the latter.
_PARAMS = 24
_VARIABLES = 6
_VARIABLE_WIDTH = 40


def job_lines(view: "JobView", spec: "JobSpec | None", failed: list[str]) -> list[str]:
    """A job; `failed`: what there is to say about frames that failed; without `spec` what anybody may see."""
    from drqueue.client.depend_text import depend_text
    from drqueue.proto.model import GENERAL

    kind = view.kind if spec is None else spec.kind
    return output.fields(
        (
            ("job", str(view.id)),
            ("name", view.name),
            ("owner", view.owner),
            ("submitted by", view.submitter if view.submitter != view.owner else ""),
            ("project", view.project),
            ("kind", kind if kind != GENERAL else ""),
            ("state", _state(view)),
            ("waits for", view.waits_for),
            *(
                ("" if number else "failed", Cell(line, "red", below=True))
                for number, line in enumerate(failed)
            ),
            ("stopped for", Cell(view.stopped_for, below=True)),
            ("priority", str(view.priority)),
            ("pool", view.pool),
            ("progress", f"{output.bar(output.part(view), 20)} {output.percent(output.part(view))}"),
            ("frames", counts_text(view.counts)),
            ("time left", output.time_left(view).replace("-", "")),
            ("mean frame", output.duration(view.mean_frame_s) if view.mean_frame_s else ""),
            ("CPU time", output.duration(view.cpu_s) if view.cpu_s else ""),
            ("submitted", output.moment(view.submitted_at)),
            ("started", output.moment(view.started_at)),
            ("finished", output.moment(view.finished_at)),
            ("not before", output.moment(view.not_before)),
            ("depends on", ", ".join(map(depend_text, view.depends))),
            ("max failures", f"{view.max_failures} ({view.failures} so far)" if view.max_failures else ""),
            ("max running", str(view.max_running or "")),
            ("max per slave", str(view.max_per_slave or "")),
            ("blocked on", ", ".join(view.blocked_hosts)),
            ("unreachable", view.on_unreachable if view.on_unreachable != "lease" else ""),
            *_given(spec),
        )
    )


def _given(spec: "JobSpec | None") -> list[tuple[str, str | Cell]]:
    """What stands in a job as it was given alone."""
    from drqueue.proto.model import GENERAL

    if spec is None:
        return []
    return [
        ("lease", output.duration(spec.lease_s) if spec.lease_s else ""),
        ("at its end", ", ".join(_at_its_end(spec))),
        ("environment", _environment(spec.env)),
        *(_params(spec.params) if spec.kind != GENERAL else ()),
    ]


def layer_lines(layer: "LayerView", spec: "LayerSpec | None") -> list[str]:
    """A layer of a job; without `spec` what anybody may see."""
    from drqueue.client.depend_text import depend_text
    from drqueue.proto.model import NODE_HOME, LayerSpec

    cwd = f"{NODE_HOME} (home of the slave's user)" if layer.cwd == NODE_HOME else layer.cwd
    return output.fields(
        (
            ("layer", Cell(layer.name, "bold")),
            ("command", Cell(layer.command or ("" if spec else NOT_SHOWN), most=_COMMAND_LINES)),
            ("range", f"{layer.frames}{f' in chunks of {layer.chunk}' if layer.chunk > 1 else ''}"),
            ("frames", counts_text(layer.counts)),
            ("needs", ", ".join(_needs(layer.needs))),
            *(("or", ", ".join(amounts_text(other))) for other in layer.needs.alternatives),
            ("where", layer.needs.where),
            ("limits", ", ".join(f"{name} {count}" for name, count in layer.limits.items())),
            ("order", layer.order if layer.order != "forward" else ""),
            ("next", layer.next),
            ("retries", str(layer.retries)),
            ("time limit", output.duration(layer.timeout_s) if layer.timeout_s else ""),
            ("success", _success(spec) if spec else ""),
            ("pad", many(spec.pad, "digit") if spec and spec.pad != LayerSpec().pad else ""),
            ("cwd", cwd),
            ("environment", _environment(spec.env) if spec else ""),
            ("outputs", ", ".join(layer.outputs)),
            ("after", ", ".join((*layer.after, *map(depend_text, layer.depends)))),
        )
    )


def counts_text(counts: Any) -> str:
    """`24: 12 done, 2 running, 10 waiting`."""
    names = ("done", "running", "assigned", "waiting", "blocked", "failed", "cancelled")
    parts = [f"{getattr(counts, name)} {name}" for name in names if getattr(counts, name)]
    return f"{counts.total}: {', '.join(parts)}" if parts else str(counts.total)


def _state(view: "JobView") -> Cell:
    bad = bad_ending(view.counts) if view.state == "FINISHED" else ""
    return output.state(f"FINISHED, but {bad}" if bad else view.state, bad=bool(bad))


def _at_its_end(spec: "JobSpec") -> list[str]:
    parts = [f"mail to {spec.email or spec.owner}"] if spec.mail_when_finished else []
    return [*parts, "deleted when finished"] if spec.delete_when_finished else parts


def _needs(needs: "Needs") -> list[str]:
    parts = amounts_text(needs)
    if needs.machine_memory_mb:
        mb = needs.machine_memory_mb
        parts.append(f"{f'{mb / 1024:.4g} GB' if mb >= 1024 else f'{mb} MB'} machine")
    return [*parts, *needs.os, *(f"tag {tag}" for tag in needs.tags)]


def amounts_text(amounts: "Needs | Alternative") -> list[str]:
    """`2 cores`, `8 GB`, `1 GPU with 12 GB`, `3 seats`."""
    parts = [many(amounts.cores, "core")]
    if amounts.memory_mb:
        parts.append(output.memory(amounts.memory_mb))
    if amounts.gpus:
        each = f" with {output.memory(amounts.gpu_memory_mb)}" if amounts.gpu_memory_mb else ""
        parts.append(f"{many(amounts.gpus, 'GPU')}{each}")
    if amounts.disk_mb:
        parts.append(f"{output.memory(amounts.disk_mb)} disk")
    return parts + [f"{amount:g} {name}" for name, amount in amounts.amounts.items()]


def _success(spec: "LayerSpec") -> str:
    codes = spec.success_exit_codes
    if isinstance(codes, str):
        return "any exit status"
    return "" if codes == (0,) else f"exit status {' or '.join(map(str, codes))}"


def _environment(env: Mapping[str, str]) -> Cell:
    """The first variables as a shell would read them, and how many there are more."""
    shown = [
        output.cut(f"{name}={shlex.quote(value)}", _VARIABLE_WIDTH)
        for name, value in list(env.items())[:_VARIABLES]
    ]
    more = [f"and {len(env) - _VARIABLES} more"] if len(env) > _VARIABLES else []
    return Cell(" ".join(shown + more), most=_LINES)


def _params(params: Mapping[str, str]) -> list[tuple[str, Cell]]:
    """A line for each, as `--set` takes it but for the blanks."""
    rows = [f"{name} = {value}" for name, value in list(params.items())[:_PARAMS]]
    rows += [f"and {len(params) - _PARAMS} more"] if len(params) > _PARAMS else []
    return [("" if number else "params", Cell(row, most=_LINES)) for number, row in enumerate(rows)]
