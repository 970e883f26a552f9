"""The part of binding.md about names that are not there, made from the table of all names: `names.toml`."""

import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

TABLE = Path(__file__).parent.parent / "tests" / "binding" / "names.toml"
Table = Callable[[Iterable[str], Iterable[Iterable[str]]], str]


def absent(table: Table) -> str:
    """Every absent name, by reason; `table` writes one in Markdown."""
    rows = [
        (row["what"], ", ".join(f"`{name}`" for name in row["names"]), row["reason"])
        for row in tomllib.loads(TABLE.read_text(encoding="utf-8"))["absent"]
    ]
    return table(("what", "names", "why not"), rows)
