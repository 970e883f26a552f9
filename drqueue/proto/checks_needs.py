"""What a layer's needs and limits, and what a slave offers to meet them, must be like, in sentences. PURE."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from drqueue.proto.checks_text import (
    MAX_AMOUNT,
    MAX_CORES,
    amount_problems,
    repeated,
    shown,
    text_problems,
    word_problems,
)
from drqueue.proto.expressions import ATTRIBUTE_NAME, ATTRIBUTES, WORDS, ExpressionError, parse
from drqueue.proto.model import Alternative, Needs, Offers
from drqueue.proto.sharing_checks import BY_ITSELF, check_limit_name

MAX_ALTERNATIVES: Final = 16
MAX_AMOUNTS: Final = 32
MAX_TAGS: Final = 64
MAX_ATTRIBUTES: Final = 64
MAX_ATTRIBUTE: Final = 255
MAX_SYSTEMS: Final = 32
MAX_GPUS: Final = 1024
#: What the original's jobs may ask for.
MAX_MACHINE_MB: Final = 2**32 - 1
#: Limits that one layer may name, and units of one that an attempt may take.
MAX_LIMITS: Final = 32
MAX_UNITS: Final = 1_000_000
#: What has a field of its own, and so is no named amount.
_FIELDS: Final = frozenset(
    {
        "cores",
        "memory",
        "memory_mb",
        "machine_memory_mb",
        "gpus",
        "gpu_memory",
        "gpu_memory_mb",
        "disk",
        "disk_mb",
    }
)


def needs_problems(where: str, needs: Needs) -> Iterator[str]:
    """What is wrong with the needs of a layer, which sentences call `where`."""
    yield from _amounts_problems(where, needs)
    yield from amount_problems(
        f"{where}: memory of the machine in MiB", needs.machine_memory_mb, MAX_MACHINE_MB
    )
    if len(needs.os) > MAX_SYSTEMS:
        yield f"{where} names {len(needs.os)} systems, {MAX_SYSTEMS} are allowed"
    for name in needs.os:
        yield from text_problems(f"{where}: the name of a system", name)
        if not name or len(name) > 127:
            yield f"{where}: no system is called {shown(name)}"
    yield from _tags_problems(where, needs.tags)
    if needs.where:
        yield from text_problems(f"{where}: the expression", needs.where, newlines=True)
        try:
            parse(needs.where)
        except ExpressionError as error:
            yield f"{where}: in the expression {shown(needs.where)}, {error}"
    if len(needs.alternatives) > MAX_ALTERNATIVES:
        yield f"{where} has {len(needs.alternatives)} alternatives, {MAX_ALTERNATIVES} are allowed"
    for number, other in enumerate(needs.alternatives, 1):
        yield from _amounts_problems(f"{where}, alternative {number}", other)


def layer_limits_problems(where: str, limits: Mapping[str, int]) -> Iterator[str]:
    """What is wrong with the limits that a layer names."""
    if len(limits) > MAX_LIMITS:
        yield f"{where} names {len(limits)} limits, {MAX_LIMITS} are allowed"
    for name, units in limits.items():
        if name.startswith(tuple(f"{kind}:" for kind in BY_ITSELF)):
            yield f"{where}: the limit {shown(name)} counts by itself, no job names it"
        problem = check_limit_name(name)
        if problem is not None:
            yield f"{where}: {problem}"
        if not 1 <= units <= MAX_UNITS:
            yield f"{where}: {units} of the limit {name}: 1 to {MAX_UNITS:,} are allowed"


def check_offers(offers: Offers) -> str | None:
    """One sentence on the first thing wrong with what a slave offers, or None."""
    return next(_offers_problems(offers), None)


def _offers_problems(offers: Offers) -> Iterator[str]:
    if repeated(list(map(str, offers.gpus))) is not None:
        yield "a GPU is offered twice"
    if max(offers.gpus, default=0) >= MAX_GPUS:
        yield f"GPU {max(offers.gpus):,} is offered: their numbers are 0 to {MAX_GPUS - 1:,}"
    yield from amount_problems("disk in MiB", offers.disk_mb)
    yield from _named_problems("", offers.amounts)
    yield from _tags_problems("the offer", offers.tags)
    if len(offers.attributes) > MAX_ATTRIBUTES:
        yield f"{len(offers.attributes)} attributes are offered, {MAX_ATTRIBUTES} are allowed"
    twice = repeated([name.casefold() for name in offers.attributes])
    if twice is not None:
        yield f"two attributes are called {shown(twice)}: capitals make no difference"
    for name, value in offers.attributes.items():
        if not ATTRIBUTE_NAME.fullmatch(name):
            yield (
                f"the attribute {shown(name)}: a name begins with a letter, and has 1 to 63 letters, "
                "digits and . _ -"
            )
        if name.casefold() in ATTRIBUTES | WORDS:
            yield f"no attribute may be called {name!r}: that means something else"
        yield from text_problems(f"the attribute {name}", value)
        if len(value) > MAX_ATTRIBUTE:
            yield f"the attribute {name} has {len(value)} characters, {MAX_ATTRIBUTE} are allowed"


def _amounts_problems(where: str, ask: Needs | Alternative) -> Iterator[str]:
    yield from amount_problems(f"{where}: cores", ask.cores, MAX_CORES)
    yield from amount_problems(f"{where}: memory in MiB", ask.memory_mb or 0)
    yield from amount_problems(f"{where}: GPUs", ask.gpus, MAX_GPUS)
    yield from amount_problems(f"{where}: memory of a GPU in MiB", ask.gpu_memory_mb)
    yield from amount_problems(f"{where}: disk in MiB", ask.disk_mb or 0)
    if ask.gpu_memory_mb and not ask.gpus:
        yield f"{where} asks for memory of GPUs, but for no GPU"
    yield from _named_problems(f"{where}: ", ask.amounts)


def _named_problems(where: str, amounts: Mapping[str, float]) -> Iterator[str]:
    if len(amounts) > MAX_AMOUNTS:
        yield f"{where}{len(amounts)} named amounts, {MAX_AMOUNTS} are allowed"
    for name, amount in amounts.items():
        yield from word_problems(f"{where}the amount", name)
        if name in _FIELDS:
            yield f"{where}no amount may be called {name!r}: that has a key of its own"
        yield from amount_problems(f"{where}the amount {name}", amount, MAX_AMOUNT)


def _tags_problems(where: str, tags: Sequence[str]) -> Iterator[str]:
    if len(tags) > MAX_TAGS:
        yield f"{where} has {len(tags)} tags, {MAX_TAGS} are allowed"
    twice = repeated(tags)
    if twice is not None:
        yield f"{where} has the tag {shown(twice)} twice"
    for tag in tags:
        yield from word_problems(f"{where}: the tag", tag)
