"""What every command has: --json, --master, --state-dir; a way to talk to the master; argument types.

Rules of the command line: a command prints its answer on stdout and everything else on stderr; it returns its
exit status (None is 0). Heavy modules are imported inside functions, so that a command pays for what it uses.
"""

import math
import os
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from drqueue.client.async_client import AsyncClient

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])


#: What helps where there is neither a master nor a login.
START_ONE = "start one here: drqueue up; or log in to a farm: drqueue login LINE"


@dataclass
class Asked:
    """The options that every command has, as given so far."""

    master: str | None = None
    state_dir: str | None = None
    json: bool = False

    def env(self) -> Mapping[str, str]:
        """The environment to look for the master in."""
        if self.state_dir is None:
            return os.environ
        return {**os.environ, "DRQUEUE_STATE_DIR": self.state_dir}

    def address(self) -> str | None:
        """Where the master must be, None where it is to be looked for."""
        if self.master is None and self.state_dir is not None:
            # Whoever names the folder means that farm and no other that happens to run.
            return f"unix:{os.path.join(os.path.abspath(self.state_dir), 'master.sock')}"
        return self.master

    def talk(
        self,
        use: "Callable[[AsyncClient], Awaitable[T]]",
        patience_s: float = 0,
        *,
        lazily: bool = False,
    ) -> T:
        """Connect to the master and use it; see `drqueue.client.errors` for what is raised.

        `lazily`: the master is dialled when it is first needed, for what slaves do without one, too.
        """
        import trio

        from drqueue.client.async_client import connect

        async def session() -> T:
            async with connect(self.address(), patience_s=patience_s, env=self.env(), lazily=lazily) as farm:
                farm.on_silence = _tell_silence
                return await use(farm)

        return trio.run(session)


def asked() -> Asked:
    """The options of the command that runs."""
    context = click.get_current_context()
    return context.find_object(Asked) or Asked()


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    options = context.ensure_object(Asked)
    if value not in (None, False):
        setattr(options, str(parameter.name), value)


def common(function: Function) -> Function:
    """Give a command the options that every command has."""
    for option in (
        click.option(
            "--state-dir",
            metavar="D",
            type=click.Path(),
            expose_value=False,
            callback=_keep,
            help="Folder of the farm's files.",
        ),
        click.option(
            "--master",
            metavar="ADDR",
            expose_value=False,
            callback=_keep,
            help="Where the master is: HOST[:PORT] or unix:PATH.",
        ),
        click.option(
            "--json", is_flag=True, expose_value=False, callback=_keep, help="Print JSON on stdout."
        ),
    ):
        function = option(function)
    return function


#: What other programs and the original's people call our commands; each stands in the first of its words.
_OTHER_WORDS: Mapping[str, tuple[str, ...]] = {
    "accounts": ("user list", "node list"),
    "add": ("node add", "user add"),
    "approve": ("node approve",),
    "cancel": ("hard-stop", "delete"),
    "computers": ("slaves",),
    "disable": ("slave disable",),
    "enable": ("slave enable",),
    "counter": ("limit list",),
    "finish": ("frame finish",),
    "history": ("audit", "attempts"),
    "heal": ("slave heal",),
    "hstop": ("hard-stop",),
    "info": ("job", "farm"),
    "kill": ("hard-stop", "frame kill"),
    "licence": ("limit list",),
    "license": ("limit list",),
    "limits": ("limit list",),
    "list": ("jobs",),
    "ls": ("jobs",),
    "nodes": ("slaves", "node list"),
    "pause": ("stop",),
    "pools": ("pool list",),
    "queue": ("jobs", "submit"),
    "quota": ("limit list", "share list"),
    "quotas": ("limit list", "share list"),
    "remove": ("delete",),
    "requeue": ("frame requeue",),
    "reset": ("frame reset",),
    "resume": ("continue", "farm resume"),
    "retry": ("frame requeue", "rerun"),
    "revoke": ("node revoke", "user revoke"),
    "rm": ("delete",),
    "shares": ("share list",),
    "show": ("job",),
    "start": ("up", "continue"),
    "status": ("jobs", "farm"),
    "users": ("user list",),
    "who": ("whoami",),
}


def unknown_command(name: str, known: Iterable[str]) -> str:
    """The sentence about a command that there is not."""
    import difflib  # only a mistake pays for it

    commands = list(known)
    meant = [other for other in _OTHER_WORDS.get(name, ()) if other.split()[0] in commands]
    meant = meant or difflib.get_close_matches(name, commands, n=1)
    hint = " or ".join(repr(each) for each in meant)
    return f"there is no command {name!r}" + (f": did you mean {hint}?" if hint else "")


class KindMistake(click.UsageError):
    """A kind, or a parameter of one, that cannot be used: what `drqueue kinds` explains."""

    def __init__(self, text: str, kind: str = "") -> None:
        super().__init__(text)
        self.see = f"drqueue kinds {kind}".rstrip()


class Commands(click.Group):
    """A group that says what may have been meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            raise click.UsageError(unknown_command(args[0], known), ctx)
        return super().resolve_command(ctx, args)


def say(text: str) -> None:
    """A line for people, on stderr."""
    from drqueue.client.cli.output import clean

    print(clean(text), file=sys.stderr, flush=True)


def say_below(text: str, indent: str = "  ") -> None:
    """A line for people, on stderr, that belongs to the one before it; wrapped on a terminal."""
    from drqueue.client.cli.output import wrapped

    for line in wrapped(text, indent) if sys.stderr.isatty() else (indent + text,):
        say(line)


def _tell_silence(answers: bool) -> None:
    say("the master answers again" if answers else "the master does not answer; waiting for it")


def interrupted(error: BaseException) -> bool:
    """Whether that is Ctrl-C, as it comes or out of a nursery."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(KeyboardInterrupt) is not None
    return isinstance(error, KeyboardInterrupt)


class FrameName(click.ParamType[tuple[str, int]]):
    """FRAME: `N` or `LAYER:N`, as (layer, number); the layer is "" where none was named."""

    name = "frame"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(?:(?P<layer>[^:]+):)?(?P<number>-?[0-9]{1,18})", value)
        if match is None:
            self.fail(f"{value!r} is no frame: it is written N or LAYER:N", param, ctx)
        return match["layer"] or "", int(match["number"])


class FrameNames(click.ParamType[tuple[str, str]]):
    """FRAMES: a frame range, or `LAYER:RANGE`, as (layer, range)."""

    name = "frames"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        from drqueue.proto.ranges import FrameRange, RangeError

        layer, frames = "", value
        # `1-10:3` is a range of its own; a layer's name is what is not made of a range's letters.
        if ":" in value and not re.fullmatch(r"[-0-9,.\sxy:]*", value.partition(":")[0]):
            layer, _, frames = value.partition(":")
        try:
            FrameRange.parse(frames)
        except RangeError as error:
            self.fail(str(error), param, ctx)
        return layer, frames


class Pair(click.ParamType[tuple[str, str]]):
    """K=V, as (K, V)."""

    name = "pair"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, rest = value.partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not of the form NAME=VALUE", param, ctx)
        return key, rest


class Whole(click.ParamType[int]):
    """A whole number within bounds."""

    name = "whole"

    def __init__(self, least: int = 0, most: int | None = None, what: str = "a whole number") -> None:
        bounds = f"from {least} on" if most is None else f"from {least} to {most}"
        self._wanted = f"{what} {bounds}"
        self._least, self._most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(value)
            if number < self._least or (self._most is not None and number > self._most):
                raise ValueError
        except ValueError:
            self.fail(f"{str(value)!r} is not {self._wanted}", param, ctx)
        return number


class Amount(click.ParamType[float]):
    """An amount: a number from 0 on, or, where `none` is given, that word for no bound (-1)."""

    name = "amount"

    def __init__(self, none: str = "", *, above: bool = False) -> None:
        self._none, self._above = none, above
        wanted = "a number above 0, as 4 or 0.5" if above else "a number from 0 on, as 20 or 2.5"
        self._wanted = f"{wanted}, or {none}" if none else wanted

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip().lower()
        if self._none and text == self._none:
            return NO_BOUND
        if re.fullmatch(r"[0-9]{1,12}(\.0*)?", text):
            number: float = int(text.partition(".")[0])
        elif re.fullmatch(r"[0-9]{0,12}\.[0-9]{1,9}", text):
            number = float(text)
        else:
            self.fail(f"{str(value)!r} is not {self._wanted}", param, ctx)
        if self._above and not number:
            self.fail(f"{str(value)!r} is not {self._wanted}", param, ctx)
        return number


class Quantity(click.ParamType[float]):
    """A number, or a number with a unit; `units` says how much each is worth, `wanted` what to write."""

    name = "quantity"

    def __init__(self, units: Mapping[str, float], wanted: str) -> None:
        self._units, self._wanted = units, wanted

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([a-z]*)", str(value).strip().lower())
        worth = self._units.get(match[2]) if match is not None else None
        if match is None or worth is None:
            self.fail(f"{str(value)!r} is not {self._wanted}", param, ctx)
        return float(match[1]) * worth


class Memory(Quantity):
    """MiB, as a whole number: rounded up, so that what was asked for is there."""

    name = "memory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return math.ceil(super().convert(value, param, ctx))


NO_BOUND = -1.0
AMOUNT = Amount()
FRAME = FrameName()
FRAMES = FrameNames()
PAIR = Pair()
JOB_ID = Whole(0, what="a job's id: a number")
NATURAL = Whole(0)
POSITIVE = Whole(1)
PRIORITY = Whole(0, 2**32 - 1)
MEMORY = Memory(
    {
        "": 1,
        **{
            f"{sign}{end}": worth
            for sign, worth in (("k", 1 / 1024), ("m", 1), ("g", 1024), ("t", 1024**2))
            for end in ("", "b", "ib")
        },
    },
    "an amount of memory: MiB, or as 500M or 4G",
)
DURATION = Quantity(
    {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}, "a time: seconds, or as 90s, 15m or 1h"
)
