"""What mutants are shown to, layer by layer: in a copy of the tree, in processes of their own.

Each layer is a command that fails where it notices something. One that runs for ever has noticed it, too.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Starts a command with little claim to the machine, and 8 GB of address space: whatever fills the memory is
#: caught by that.
BOUNDED = (
    "import os, resource, sys; os.nice(5); resource.setrlimit(resource.RLIMIT_AS, (8 << 30,) * 2); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
COPIED = ("drqueue", "tests", "pyproject.toml", "README.md", "docs")
MODELS = (
    "tests/slave/test_core_machine.py",
    "tests/master/test_core_model.py",
    "tests/master/test_core_machine.py",
    "tests/master/test_core_depend_machine.py",
)
#: The tests of a file alone, by how its path begins; the first that fits counts.
UNIT = (
    ("drqueue/master/core/", "tests/master", "test_core_*.py"),
    ("drqueue/slave/core/", "tests/slave", "test_core*.py"),
    ("drqueue/slave/identity.py", "tests/slave", "test_identity.py"),
    ("drqueue/engine.py", "tests", "test_engine*.py"),
    ("drqueue/slave/", "tests/slave", "test_*.py"),
    ("drqueue/master/", "tests/master", "test_*.py"),
    ("drqueue/", "tests", "test_*.py"),
)
#: Tests of these files stand first where one of them is changed: they are not called like it.
LIKELY = {
    "on_slave": ("reconcile", "told_twice", "leases", "frames", "join"),
    "attempts": ("frames", "returns", "settled"),
    "attempt": ("frames", "returns"),
    "layer": ("frames", "folding", "order"),
    "state": ("frames", "jobs", "placement"),
    "on_client": ("jobs", "frames", "queries"),
    "gates": ("depend",),
    "cancelling": ("depend_changes", "depend"),
    "cycles": ("depend",),
    "lanes": ("turns", "sharing"),
    "schedule": ("turns", "placement", "limits", "ahead"),
    "fairness": ("sharing", "turns"),
    "demand": ("placement", "offers"),
    "amounts": ("placement", "offers"),
    "explain": ("why", "why_slaves"),
    "shortage": ("why", "why_slaves"),
    "impossible": ("warnings",),
    "register": ("accounts", "join"),
    "on_account": ("accounts",),
    "restore": ("restore", "frames", "leases"),
    "tokens": ("jobs",),
    "rerange": ("live_changes",),
    "slave": ("placement", "trouble"),
    "dispatch": ("frames", "placement"),
    "core": ("frames", "jobs", "leases"),
    "turn": ("frames", "reconcile"),
    "named": ("queries",),
    "holdback": ("restore",),
}


@dataclass(frozen=True)
class Layer:
    """One command; `seconds` is how long it may run."""

    name: str
    command: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Caught:
    """Which layer noticed a mutant ("": none), by which test, after how long."""

    layer: str
    test: str
    seconds: float


def unit_files(changed: Iterable[str], root: Path) -> tuple[list[str], list[str]]:
    """Test files for the files that were changed: those that are likely to notice, and the others."""
    found: dict[str, int] = {}
    unlikely = 100
    for path in changed:
        folder, pattern = next((f, p) for prefix, f, p in UNIT if path.startswith(prefix))
        stem = Path(path).stem
        words = (stem, *LIKELY.get(stem, ()))
        for file in sorted((root / folder).glob(pattern)):
            name = str(file.relative_to(root))
            about = file.stem.removeprefix("test_core_").removeprefix("test_")
            rank = next((i for i, word in enumerate(words) if about == word), unlikely)
            if name not in MODELS:
                found[name] = min(rank, found.get(name, rank))
    files = sorted(found, key=lambda name: (found[name], name))
    likely = [name for name in files if found[name] < unlikely]
    return likely, files[len(likely) :]


def pytest(files: Iterable[str], *more: str) -> tuple[str, ...]:
    """The command for these test files, up to the first failure."""
    options = ("-q", "-x", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-o", "addopts=", *more)
    return (sys.executable, "-m", "pytest", *options, *files)


def models_for(changed: Iterable[str]) -> list[str]:
    """The models of the cores that were changed; all of them for what both rest on."""
    paths = list(changed)
    sides = [side for side in ("slave", "master") if any(p.startswith(f"drqueue/{side}/") for p in paths)]
    return [file for file in MODELS if not sides or any(f"/{side}/" in file for side in sides)]


def layers(changed: list[str], root: Path, *, seeds: int, faults: bool, quick: bool = False) -> list[Layer]:
    """All that a mutant of these files is shown to; `quick`: models before unit tests of which none is likely
    to notice."""
    # In two, for a thousand tests take long to collect.
    made = [Layer("unit tests", pytest(files), 900) for files in unit_files(changed, root) if files]
    made.insert(1 if quick else len(made), Layer("models", pytest(models_for(changed)), 300))
    if seeds:
        command = (sys.executable, "-m", "tests.sim", "--seeds", str(seeds), "--most", "1")
        made.append(Layer("simulator", command, 60 + 5.0 * seeds))
    if faults:
        made.append(Layer("faults", pytest(["tests/faults"]), 1200))
    return made


class Tree:
    """A copy of a tree, in which one mutant after the other stands."""

    def __init__(self, folder: Path, of: Path = ROOT) -> None:
        self.folder = folder
        folder.mkdir()
        for name in COPIED:
            source = of / name
            if source.is_dir():
                shutil.copytree(source, folder / name)
            elif source.exists():
                shutil.copy2(source, folder / name)

    def write(self, files: Mapping[str, str]) -> None:
        """Put these in their places; what was compiled of the former ones is dropped."""
        for path, text in files.items():
            file = self.folder / path
            file.write_text(text)
            for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*"):
                compiled.unlink()

    def originals(self, paths: Iterable[str]) -> dict[str, str]:
        """These files as they stand there now."""
        return {path: (self.folder / path).read_text() for path in paths}

    def shown(self, files: Mapping[str, str], through: Iterable[Layer]) -> Caught:
        """Show a mutant to one layer after the other, up to the first that notices it."""
        before = self.originals(files)
        self.write(files)
        begin = time.monotonic()
        try:
            for layer in through:
                test = self.run(layer)
                if test:
                    return Caught(layer.name, test, time.monotonic() - begin)
        finally:
            self.write(before)
        return Caught("", "", time.monotonic() - begin)

    def run(self, layer: Layer) -> str:
        """What failed in a layer, "" for nothing."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("DRQUEUE_")}
        # Before the tree that this python's packages come from.
        environ["PYTHONPATH"] = str(self.folder)
        with subprocess.Popen(
            (sys.executable, "-c", BOUNDED, *layer.command),
            cwd=self.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                out, _ = process.communicate(timeout=layer.seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                return f"still running after {layer.seconds:.0f} s"
        return "" if process.returncode == 0 else _what_failed(out)


def _what_failed(out: str) -> str:
    failed = re.search(r"^(?:FAILED|ERROR) (\S+(?:\[.*?\])?)", out, re.MULTILINE)
    if failed:
        return failed[1]
    if "Timeout" in out:
        return "a test that ran too long"
    seed = re.search(r"^seed (\d+) at .*", out, re.MULTILINE)
    if seed:
        return seed[0][:100]
    lines = [line for line in out.splitlines() if line.strip()]
    return lines[-1][:100] if lines else "it ended with an error"
