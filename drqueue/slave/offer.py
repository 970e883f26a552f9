"""What a slave brings to the farm: what its settings say, and where they say nothing, what was measured."""

from typing import NamedTuple

from drqueue.address import SettingsError
from drqueue.proto.checks_text import MAX_AMOUNT
from drqueue.proto.model import MachineInfo, Offers
from drqueue.settings import SlaveSettings


class Offer(NamedTuple):
    """The machine, and what of it is offered."""

    machine: MachineInfo
    cores: int
    memory_mb: int
    offers: Offers


def offer_of(settings: SlaveSettings, machine: MachineInfo, disk_free_mb: int) -> Offer:
    """What is offered where so much of the scratch disk is free; SettingsError for what cannot be."""
    if settings.attributes:
        # Late: who sets none does not pay for the language.
        from drqueue.proto.expressions import ATTRIBUTES, WORDS

        for name in settings.attributes:
            if name.casefold() in ATTRIBUTES | WORDS:
                raise SettingsError(f"attributes cannot hold {name!r}: every slave has that of its own")
    offers = Offers(
        gpus=_gpus(settings, machine),
        disk_mb=min(disk_free_mb, MAX_AMOUNT) if settings.disk_mb is None else settings.disk_mb,
        amounts=settings.amounts,
        tags=settings.tags,
        attributes=settings.attributes,
    )
    if settings.amounts or settings.tags or settings.attributes:
        from drqueue.proto.checks_needs import check_offers

        # The master would turn this slave away.
        problem = check_offers(offers)
        if problem is not None:
            raise SettingsError(problem)
    return Offer(
        machine,
        settings.cores or max(1, machine.cores_logical),
        settings.memory_mb or machine.memory_mb,
        offers,
    )


def _gpus(settings: SlaveSettings, machine: MachineInfo) -> tuple[int, ...]:
    """The indexes of the devices that are offered."""
    found = tuple(gpu.index for gpu in machine.gpus)
    wanted = settings.gpus
    if isinstance(wanted, str):
        return found if wanted == "all" else ()
    for index in wanted:
        if index not in found:
            shown = f"its GPUs are {', '.join(map(str, found))}" if found else "no GPU was found on it"
            raise SettingsError(f"gpus: this machine has no GPU {index}: {shown}")
    return tuple(wanted)
