"""What a job must be like, in sentences. Pure; clients ask before they send, the master before it accepts.

Limits: names up to 127 characters, commands up to 64 kB, an environment up to 64 kB, 100 layers,
1,000 dependencies, 10,000,000 frames a layer, the whole job within one packet, with room to spare for what
its orders and its answers add. Needs, dependencies and limits have modules of their own.
"""

import re
from collections.abc import Iterable, Iterator

import msgspec

from drqueue.proto.checks_depends import depends_problems, layer_cycle, layer_depends_problems
from drqueue.proto.checks_needs import layer_limits_problems, needs_problems
from drqueue.proto.checks_text import POOL_NAME, party_problems, pool_problems, text_problems
from drqueue.proto.model import NODE_HOME, SCRATCH, JobSpec, LayerSpec, LimitsChange
from drqueue.proto.order_text import check_next, check_order
from drqueue.proto.placeholders import check_output, check_text
from drqueue.proto.progress import check_progress_pattern
from drqueue.proto.ranges import FrameRange, RangeError

__all__ = ["POOL_NAME", "check_limits", "check_spec", "layer_cycle"]

MAX_COMMAND = 64 * 1024
MAX_ENV = 64 * 1024
MAX_JOB = 192 * 1024
MAX_LAYERS = 100
MAX_DEPENDS = 1000
MAX_OUTPUTS = 100
MAX_OUTPUT_BYTES = 32 * 1024
MAX_PATH = 4096
MAX_RETRIES = 1000
MAX_BLOCKED_BYTES = 32 * 1024
#: Bytes of a change of a slave's limits: a slave tells them with all else that it says of itself.
MAX_LIMITS = 16 * 1024
#: Seconds; a shorter lease would end frames at any restart of the master.
MIN_LEASE_S = 30
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_LAYER_NAME = re.compile(r"[^\s:/\x00-\x1f][^:/\x00-\x1f]*\Z")


def check_spec(spec: JobSpec) -> str | None:
    """One sentence on the first thing wrong with a job, or None."""
    return next(_problems(spec), None)


def check_limits(change: LimitsChange) -> str | None:
    """One sentence on what is wrong with a change of a slave's limits, or None."""
    size = len(msgspec.msgpack.encode(change))
    return f"the limits have {size} bytes, {MAX_LIMITS} are allowed" if size > MAX_LIMITS else None


def _problems(spec: JobSpec) -> Iterator[str]:
    yield from text_problems("the job's name", spec.name)
    if not spec.name.strip():
        yield "the job's name is blank"
    if not spec.layers:
        yield "the job has no layer: nothing to run"
    if len(spec.layers) > MAX_LAYERS:
        yield f"the job has {len(spec.layers)} layers, {MAX_LAYERS} are allowed"
    if len(spec.depends) > MAX_DEPENDS:
        yield f"the job has {len(spec.depends)} dependencies, {MAX_DEPENDS} are allowed"
    if sum(len(host.encode(errors="replace")) + 4 for host in spec.blocked) > MAX_BLOCKED_BYTES:
        yield f"the names of the job's blocked hosts exceed {MAX_BLOCKED_BYTES} bytes"
    if 0 < spec.lease_s < MIN_LEASE_S:
        yield f"a lease of {spec.lease_s:g} s is too short: {MIN_LEASE_S} s at least, or 0 for the farm's"
    yield from pool_problems(spec.pool)
    yield from party_problems("the job's owner", spec.owner)
    yield from party_problems("the job's project", spec.project)
    yield from depends_problems(spec.depends)
    for text in (spec.email, spec.kind, *spec.params, *spec.blocked):
        yield from text_problems("the job", text)
    for name, value in spec.params.items():
        yield from text_problems(f"the job's parameter {name}", value, newlines=True)
    yield from _env_problems("the job", spec.env)
    names: set[str] = set()
    for layer in spec.layers:
        if layer.name in names:
            yield f"two layers are called {layer.name!r}"
        names.add(layer.name)
        yield from _layer_problems(layer)
    yield from layer_depends_problems(spec.layers)
    size = len(msgspec.msgpack.encode(spec))
    if size > MAX_JOB:
        yield f"the job has {size} bytes in all, {MAX_JOB} are allowed"


def _layer_problems(layer: LayerSpec) -> Iterable[str]:
    where = f"layer {layer.name!r}"
    if not _LAYER_NAME.match(layer.name):
        yield f"{where}: a layer's name may hold no colon, slash or control character"
    if bool(layer.argv) == bool(layer.shell):
        yield (
            f"{where} needs a command: either words or a shell string"
            if not layer.argv
            else (f"{where} has both words and a shell string as its command")
        )
    if layer.argv and not layer.argv[0]:
        yield f"{where}: the command is empty"
    if layer.shell and not layer.shell.strip():
        yield f"{where}: the command is blank"
    size = sum(len(word.encode(errors="replace")) + 1 for word in layer.argv) + len(
        layer.shell.encode(errors="replace")
    )
    if size > MAX_COMMAND:
        yield f"{where}: the command has {size} bytes, {MAX_COMMAND} are allowed"
    for word in (*layer.argv, layer.shell, layer.cwd, *layer.outputs):
        yield from text_problems(where, word, newlines=True)
    if layer.cwd and layer.cwd not in (SCRATCH, NODE_HOME) and not layer.cwd.startswith("/"):
        cwd = f"{layer.cwd!r:.80}"
        yield f"{where}: the working directory {cwd} is neither an absolute path, 'scratch' nor '~'"
    if len(layer.outputs) > MAX_OUTPUTS:
        yield f"{where} declares {len(layer.outputs)} outputs, {MAX_OUTPUTS} are allowed"
    if sum(len(pattern.encode(errors="replace")) for pattern in layer.outputs) > MAX_OUTPUT_BYTES:
        yield f"{where}: its output patterns exceed {MAX_OUTPUT_BYTES} bytes"
    if len(layer.cwd.encode(errors="replace")) > MAX_PATH:
        yield f"{where}: the working directory's path exceeds {MAX_PATH} bytes"
    if not layer.success_exit_codes:
        yield f"{where}: no exit code would be a success; name some, or 'any'"
    if layer.retries > MAX_RETRIES:
        yield f"{where}: {layer.retries} retries, {MAX_RETRIES} are allowed"
    yield from _env_problems(where, layer.env)
    yield from needs_problems(where, layer.needs)
    yield from layer_limits_problems(where, layer.limits)
    frames = None
    try:
        frames = FrameRange.parse(layer.frames)
    except RangeError as error:
        yield f"{where}: {error}"
    problems = [check_text(text) for text in (*layer.argv, layer.shell, layer.cwd)]
    problems += [check_output(pattern) for pattern in layer.outputs]
    problems += [check_order(layer.order, frames), check_next(layer.next)]
    if layer.progress:
        problems.append(check_progress_pattern(layer.progress))
    yield from (f"{where}: {problem}" for problem in problems if problem is not None)


def _env_problems(where: str, env: dict[str, str]) -> Iterable[str]:
    size = 0
    for name, value in env.items():
        if not _ENV_NAME.match(name):
            yield f"{where}: {name!r} is no name for an environment variable"
        yield from text_problems(f"{where}: the variable {name}", value, newlines=True)
        size += len(name) + len(value.encode(errors="replace")) + 2
    if size > MAX_ENV:
        yield f"{where}: the environment has {size} bytes, {MAX_ENV} are allowed"
