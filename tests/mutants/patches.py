"""The named mutants: small patches, each of which breaks one promise.

A hunk is found by its lines, wherever they stand by now, and must stand in its file exactly once: so a patch
applies for as long as what it breaks is there, and whoever changes that hears of it.
"""

from dataclasses import dataclass
from pathlib import Path

PATCHES = Path(__file__).parent / "patches"


class PatchError(Exception):
    """A patch does not apply any more."""


@dataclass(frozen=True)
class Hunk:
    """In the file at `path` (from the repository's root), `old` becomes `new`."""

    path: str
    old: str
    new: str


def names() -> list[str]:
    """All named mutants."""
    return sorted(path.stem for path in PATCHES.glob("*.patch"))


def read(name: str) -> list[Hunk]:
    """A mutant's hunks; PatchError where it is no unified diff."""
    hunks: list[Hunk] = []
    path, old, new = "", [""][:0], [""][:0]

    def end() -> None:
        if old or new:
            hunks.append(Hunk(path, "".join(old), "".join(new)))
        old.clear()
        new.clear()

    for line in (PATCHES / f"{name}.patch").read_text().splitlines(keepends=True):
        if line.startswith("--- "):
            end()
        elif line.startswith("+++ "):
            path = line[4:].split("\t")[0].strip().removeprefix("b/")
        elif line.startswith("@@"):
            end()
        elif line.startswith((" ", "-", "+")) and path:
            old += [line[1:]] * (line[0] in " -")
            new += [line[1:]] * (line[0] in " +")
        elif path:
            raise PatchError(f"{name}: {line.rstrip()!r} is no line of a unified diff")
    end()
    if not hunks:
        raise PatchError(f"{name}: nothing is changed")
    return hunks


def applied(name: str, root: Path) -> dict[str, str]:
    """The files that a mutant changes, by path, as it leaves them; PatchError where it does not apply."""
    files: dict[str, str] = {}
    for hunk in read(name):
        text = files.get(hunk.path) or (root / hunk.path).read_text()
        found = text.count(hunk.old)
        if found != 1:
            where = f"{name}: of {hunk.path} this is there {found} times"
            raise PatchError(f"{where}:\n{hunk.old}")
        files[hunk.path] = text.replace(hunk.old, hunk.new)
    return files
