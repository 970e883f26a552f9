"""Options that `submit` and `set` share: what a layer needs, in which order it goes, what it waits for.

Rules: a value is read as far as that takes no more than its own text; what it means for the job is checked
with the job. Options that are given several times replace what was there; one that is empty stands for none.
"""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from drqueue.client.cli.common import MEMORY, NATURAL

if TYPE_CHECKING:
    from drqueue.proto.model import Alternative, Depend, LayerDepend

Function = TypeVar("Function", bound=Callable[..., Any])


class Grouped(click.Command):
    """A command whose `--help` has headings, each above the option that it begins with."""

    def __init__(self, *args: Any, headings: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.headings = headings

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        title, groups = "Options", dict[str, list[tuple[str, str]]]()
        for param in self.get_params(ctx):
            if not isinstance(param, click.Option):
                continue
            title = self.headings.get(param.name or "", title)
            record = param.get_help_record(ctx)
            if record is not None:
                groups.setdefault(title, []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _number(text: str) -> int | float | None:
    """A number that is not negative, as people write it."""
    if re.fullmatch(r"[0-9]{1,12}", text):
        return int(text)
    return float(text) if re.fullmatch(r"[0-9]{0,12}\.[0-9]{1,9}", text) else None


class Cores(click.ParamType[float]):
    """Cores, or fractions of one."""

    name = "cores"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = _number(str(value))
        if not number:
            self.fail(f"{str(value)!r} is no number of cores: write for example 4 or 0.5", param, ctx)
        return number


class NamedAmount(click.ParamType[tuple[str, float]]):
    """NAME=AMOUNT; without an amount, where that is allowed, it is 1."""

    name = "amount"

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        number = _number(text) if equals else 1 if self._whole else None
        if not name or number is None or (self._whole and not isinstance(number, int)):
            form = "NAME or NAME=N, as nuke=2" if self._whole else "NAME=AMOUNT, as bandwidth=0.5"
            self.fail(f"{value!r} is not of the form {form}", param, ctx)
        return name, number


class Or(click.ParamType["Alternative | None"]):
    """`cores=16,memory=32G`: amounts that do as well; None where it is empty."""

    name = "alternative"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> "Alternative | None":
        from drqueue.proto.model import Alternative

        if value is None or isinstance(value, Alternative):
            return value
        fields: dict[str, Any] = {}
        amounts: dict[str, float] = {}
        for part in filter(None, value.replace(" ", "").split(",")):
            name, _, text = part.partition("=")
            if name in fields or name in amounts:
                self.fail(f"{value!r} says {name} twice", param, ctx)
            if name == "cores":
                fields[name] = CORES.convert(text, param, ctx)
            elif name == "gpus":
                fields[name] = NATURAL.convert(text, param, ctx)
            elif name in ("memory", "gpu-memory", "disk"):
                fields[name] = MEMORY.convert(text, param, ctx)
            else:
                amounts[name] = AMOUNT.convert(part, param, ctx)[1]
        if not fields and not amounts:
            return None
        named = {
            f"{name.replace('-', '_')}_mb" if name in ("memory", "gpu-memory", "disk") else name: number
            for name, number in fields.items()
        }
        return Alternative(**named, amounts=amounts)


class DependText(click.ParamType["Depend | LayerDepend"]):
    """What is waited for; `of_layers`: also layers of the same job, and previous frames."""

    name = "dependency"

    def __init__(self, *, of_layers: bool) -> None:
        self._of_layers = of_layers

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> "Depend | LayerDepend":
        from drqueue.client.depend_text import DependTextError, parse_depend, parse_layer_depend
        from drqueue.proto.model import Depend, LayerDepend

        if isinstance(value, (Depend, LayerDepend)):
            return value
        of_job = re.fullmatch(r"[0-9]+(/.*)?", value.strip().partition(":")[0]) is not None
        try:
            return parse_layer_depend(value) if self._of_layers and not of_job else parse_depend(value)
        except DependTextError as error:
            self.fail(str(error), param, ctx)


CORES = Cores()
AMOUNT = NamedAmount(whole=False)
LIMIT = NamedAmount(whole=True)
DEPEND = DependText(of_layers=False)
ANY_DEPEND = DependText(of_layers=True)
_OR = Or()


def need_options(function: Function) -> Function:
    """The options for what an attempt needs of a slave; `needs_given` reads them."""
    for option in (
        click.option(
            "--or",
            "alternatives",
            type=_OR,
            multiple=True,
            metavar="AMOUNTS",
            help="Amounts that do as well, as cores=16,memory=32G; repeatable, tried in order.",
        ),
        click.option("--where", metavar="EXPR", help="Slaves of which that is true: 'cpu ~ \"*EPYC*\"'."),
        click.option(
            "--tag", "tags", multiple=True, metavar="TAG", help="Slaves with this tag only; repeatable."
        ),
        click.option(
            "--os", "os_names", multiple=True, metavar="OS", help="Slaves with this system only; repeatable."
        ),
        click.option(
            "--need",
            "amounts",
            type=AMOUNT,
            multiple=True,
            metavar="NAME=X",
            help="So much of what slaves offer by that name; repeatable.",
        ),
        click.option("--disk", type=MEMORY, metavar="MB", help="Scratch disk of one attempt, likewise."),
        click.option("--gpu-memory", type=MEMORY, metavar="MB", help="Memory that each GPU must have."),
        click.option("--gpus", type=NATURAL, metavar="N", help="GPUs of one attempt, which has them alone."),
        click.option(
            "--memory", type=MEMORY, metavar="MB", help="Memory of one attempt in MiB, or as 500M or 4G."
        ),
        click.option(
            "--cores", type=CORES, metavar="N", help="Cores of one attempt, as 4 or 0.5 (default 1)."
        ),
    ):
        function = option(function)
    return function


#: The options above as `Needs` calls them.
_NEEDS = {
    "cores": "cores",
    "memory": "memory_mb",
    "gpus": "gpus",
    "gpu_memory": "gpu_memory_mb",
    "disk": "disk_mb",
    "amounts": "amounts",
    "os_names": "os",
    "tags": "tags",
    "where": "where",
    "alternatives": "alternatives",
}


def needs_given(given: dict[str, Any]) -> dict[str, Any]:
    """Fields of `Needs`, taken out of the options given."""
    fields: dict[str, Any] = {}
    for option, field in _NEEDS.items():
        value = given.pop(option)
        if value is None or value == ():
            continue
        if isinstance(value, tuple):
            value = tuple(each for each in value if each not in (None, ""))
        fields[field] = dict(value) if field == "amounts" else value
    return fields
