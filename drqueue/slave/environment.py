"""From an order to a command: arguments, working directory, environment. PURE.

Rules: placeholders are filled in as `drqueue.proto.placeholders` says. The environment is the node's basis,
then the job's, then what DRQUEUE_* says of this very frame; never the daemon's own. So a job may override
DRQUEUE_ROOT and all else of the basis, but not DRQUEUE_FRAME.
"""

from collections.abc import Mapping
from operator import attrgetter
from typing import NamedTuple

from drqueue.proto.model import NODE_HOME, SCRATCH, RunOrder
from drqueue.proto.placeholders import NUMBERS, PlaceholderError, fill
from drqueue.slave.core.amounts import milli, plain

#: A variable or argument longer than this cannot be handed to a process (the kernel's limit is 128 kB).
MAX_TEXT = 120_000
SHELL = "/bin/sh"

_SYSTEMS = {"linux": "LINUX", "darwin": "OSX", "freebsd": "FREEBSD", "windows": "WINDOWS"}


class BadOrderError(Exception):
    """An order that cannot be carried out; the text is one sentence for its user."""


class Node(NamedTuple):
    """What a slave adds to an order. `basis` is the environment that all its frames have."""

    basis: Mapping[str, str]
    home: str
    scratch: str


class Command(NamedTuple):
    """What to start. With `scratch` the directory `cwd` is made for it.

    `layer_env`, the very same object for many frames, is what they have in common; `frame_env` goes over it.
    """

    argv: tuple[str, ...]
    layer_env: dict[str, str]
    frame_env: dict[str, str]
    cwd: str
    scratch: bool

    @property
    def env(self) -> dict[str, str]:
        """The whole environment."""
        return self.layer_env | self.frame_env


def node_basis(
    *,
    path: str,
    home: str,
    user: str,
    lang: str,
    tz: str,
    os_name: str,
    tmp: str = "/tmp",
    handed_on: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment that all frames of a node have; empty values are left out."""
    basis = {
        **(handed_on or {}),
        "PATH": path,
        "HOME": home,
        "USER": user,
        "LOGNAME": user,
        "LANG": lang,
        "TZ": tz,
        "TMPDIR": tmp,
        "DRQUEUE_OS": _SYSTEMS.get(os_name, os_name.upper()),
    }
    return {name: value for name, value in basis.items() if value}


def command(order: RunOrder, node: Node) -> Command:
    """What an order comes to on this node; raises BadOrderError."""
    layer = _layers.of(order, node)
    argv, cwd = layer.argv, layer.cwd
    if layer.filled:
        fields = _Fields(order)
        argv = tuple([fields.fill(word) for word in argv])
    if not cwd:
        cwd = working_directory(order, node)
    return Command(argv, layer.env, _frame_environment(order, cwd), cwd, layer.scratch)


def working_directory(order: RunOrder, node: Node) -> str:
    """Where an order runs; raises BadOrderError."""
    if order.cwd == SCRATCH:
        key = order.key
        return f"{node.scratch}/{key.job}.{key.layer}.{key.frame}.{key.attempt}"
    cwd = node.home if order.cwd in ("", NODE_HOME) else order.cwd
    if "{" in order.cwd:
        cwd = _Fields(order).fill(cwd)
    if "\0" in cwd or not cwd.startswith("/"):
        raise BadOrderError(f"the working directory {cwd!r:.80} is no absolute path")
    return cwd


def output_fields(order: RunOrder) -> dict[str, object]:
    """The placeholders of outputs, besides the frame's number."""
    fields = _Fields(order)
    names = [*NUMBERS[1:], *(["frames"] if any("{frames}" in text for text in order.outputs) else [])]
    return {name: fields.value(name) for name in names}


def members(order: RunOrder) -> range:
    """The pictures' numbers of an order, in order; raises BadOrderError."""
    if not order.step:
        raise BadOrderError("the order's step is 0")
    return range(order.start, order.start + order.step * order.count, order.step)


def members_text(order: RunOrder) -> str:
    """The same as text: one number, FIRST-LAST for a step of 1, else a list; raises BadOrderError."""
    if order.count == 1:
        return str(order.start)
    if order.step == 1:
        return f"{order.start}-{order.start + order.count - 1}"
    if 2 * order.count > MAX_TEXT:
        raise BadOrderError(
            f"a list of {order.count} pictures is too long for a command; use {{start}}, {{end}} and {{step}}"
        )
    return ",".join(map(str, members(order)))


_of_layer = attrgetter(
    "key.job", "argv", "env", "range_start", "range_end", "range_step", "block", "job_name", "owner", "pool",
    "layer_name", "cores", "memory_mb", "disk_mb", "amounts", "cwd", "shell",
)  # fmt: skip


class _Layer(NamedTuple):
    """What a layer's orders come to alike. `filled`: argv has placeholders; `cwd` "": each has its own."""

    argv: tuple[str, ...]
    filled: bool
    cwd: str
    scratch: bool
    env: dict[str, str]


class _Layers:
    """The layer made last, for nearly always the next order is of the same one."""

    def __init__(self) -> None:
        self._node: Node | None = None
        self._made_of: object = None
        self._layer = _Layer((), False, "", False, {})

    def of(self, order: RunOrder, node: Node) -> _Layer:
        """The order's layer; raises BadOrderError."""
        made_of = _of_layer(order)
        if node is not self._node or made_of != self._made_of:
            self._layer = _layer(order, node)
            self._node, self._made_of = node, made_of
        return self._layer


_layers = _Layers()


def _layer(order: RunOrder, node: Node) -> _Layer:
    argv = (SHELL, "-c", order.shell) if order.shell else order.argv
    if not argv or not argv[0]:
        raise BadOrderError("the command is empty")
    text = "".join(argv)
    if "\0" in text:
        raise BadOrderError("the command holds a NUL character")
    scratch = order.cwd == SCRATCH
    cwd = "" if scratch or "{" in order.cwd else working_directory(order, node)
    return _Layer(argv, "{" in text, cwd, scratch, _layer_environment(order, node))


def _layer_environment(order: RunOrder, node: Node) -> dict[str, str]:
    env = dict(node.basis)
    for name, value in order.env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise BadOrderError(f"{name!r} cannot be a variable of the environment")
        env[name] = value
    env["DRQUEUE_STARTFRAME"] = str(order.range_start)
    env["DRQUEUE_ENDFRAME"] = str(order.range_end)
    env["DRQUEUE_STEPFRAME"] = str(order.range_step)
    env["DRQUEUE_BLOCKSIZE"] = str(order.block)
    env["DRQUEUE_JOBID"] = str(order.key.job)
    env["DRQUEUE_JOBNAME"] = order.job_name
    env["DRQUEUE_OWNER"] = order.owner
    env["DRQUEUE_POOL"] = order.pool
    env["DRQUEUE_LAYER"] = order.layer_name
    env["DRQUEUE_THREADS"] = str(max(1, int(order.cores)))
    env["DRQUEUE_MEMORY_MB"] = str(order.memory_mb)
    env["DRQUEUE_DISK_MB"] = str(order.disk_mb)
    env["DRQUEUE_AMOUNTS"] = ",".join(
        [f"{name}={plain(milli(amount))}" for name, amount in order.amounts.items()]
    )
    return env


def _frame_environment(order: RunOrder, cwd: str) -> dict[str, str]:
    env = {"DRQUEUE_FRAME": str(order.start), "DRQUEUE_ATTEMPT": str(order.key)}
    env["DRQUEUE_PADFRAME"] = padded = _pad(order.start, order.pad)
    if order.count == 1:
        env["DRQUEUE_PADFRAMES"] = padded
    elif (order.pad + 1) * order.count <= MAX_TEXT:
        # Longer ones would keep the command from being started at all.
        padded = " ".join([_pad(number, order.pad) for number in members(order)])
        if len(padded) <= MAX_TEXT:
            env["DRQUEUE_PADFRAMES"] = padded
    env["DRQUEUE_GPUS"] = ""
    if order.gpus:
        env["DRQUEUE_GPUS"] = gpus = ",".join(map(str, order.gpus))
        env["CUDA_VISIBLE_DEVICES"] = env["ROCR_VISIBLE_DEVICES"] = gpus
        # Else CUDA counts from the fastest device on, and the driver's indexes mean others.
        env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    if order.outputs:
        env["DRQUEUE_OUTPUT"] = first_output(order, cwd)
    return env


def first_output(order: RunOrder, cwd: str) -> str:
    """The file that the first picture is declared to make, "" where none is; raises BadOrderError."""
    from drqueue.slave.outputs import expand_output  # only orders with outputs pay for it

    try:
        return expand_output(order.outputs[0], [order.start], output_fields(order), cwd)[0]
    except ValueError as error:
        raise BadOrderError(str(error)) from None


def _pad(number: int, digits: int) -> str:
    """As C's %0*d, which scripts know: a minus sign takes the place of a digit."""
    return f"{number:0{digits}d}"


class _Fields:
    """The placeholders of one order."""

    def __init__(self, order: RunOrder) -> None:
        self._order = order

    def fill(self, text: str) -> str:
        """A text with its placeholders replaced; raises BadOrderError."""
        try:
            return fill(text, self.value)
        except PlaceholderError as error:
            raise BadOrderError(str(error)) from None

    def value(self, name: str) -> int | str:
        order = self._order
        match name:
            case "frame" | "start":
                return order.start
            case "end":
                return order.start + order.step * (order.count - 1)
            case "step":
                return order.step
            case "attempt":
                return order.key.attempt
            case "threads":
                return max(1, int(order.cores))
            case _:
                return members_text(order)
