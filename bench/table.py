"""What every bench prints: medians of its rounds, as a table."""

import os
import platform
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table


class Row(NamedTuple):
    """One figure: its name, how it is found in a round, its unit."""

    name: str
    get: Callable[[Any], float]
    unit: str
    digits: int = 0


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def medians(rounds: list[Any]) -> Any:
    """The rounds' figures, number by number."""
    first = rounds[0]
    if isinstance(first, dict):
        return {key: medians([one[key] for one in rounds]) for key in first}
    return median(rounds)


def show(title: str, rounds: list[Any], rows: Sequence[Row]) -> None:
    """Print the median and the range of every figure."""
    here = machine()
    table = Table(title=f"DrQueue on {here['cpus']} CPUs, Python {here['python']}: {title}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("range", justify="right")
    middle = medians(rounds)
    for row in rows:
        values = [row.get(one) for one in rounds]
        table.add_row(
            row.name,
            f"{row.get(middle):,.{row.digits}f} {row.unit}".rstrip(),
            f"{min(values):,.{row.digits}f} - {max(values):,.{row.digits}f}",
        )
    Console().print(table)
