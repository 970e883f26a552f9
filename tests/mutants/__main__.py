"""`python -m tests.mutants`: break the program on purpose, and see which tests notice.

The named mutants, or with --random N so many random ones of each core, are put one by one into a copy of the
tree and shown to unit tests, models, simulator and, the named ones, real faults, up to the first layer that
notices. 1 where too many survive.
"""

import argparse
import queue
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.mutants import patches, random_ones
from tests.mutants.layers import Caught, Layer, Tree, layers

#: Of 20 named ones so many must be caught, and so many of a hundred random ones.
NAMED_LEAST, RANDOM_LEAST = 19, 0.85


@dataclass(frozen=True)
class Task:
    """One mutant: the files as it leaves them, and what it is shown to."""

    name: str
    files: dict[str, str]
    through: list[Layer]


def main() -> int:
    """Run; 1 where too many survive."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="those whose name holds this")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="so many random ones of each core")
    parser.add_argument("--seed", type=int, default=1, help="of the random ones (1)")
    parser.add_argument("--core", choices=sorted(random_ones.CORES), help="random ones of this core alone")
    parser.add_argument("--sim", type=int, default=40, metavar="N", help="seeds of the simulator (40)")
    parser.add_argument("--no-faults", action="store_true", help="without real daemons")
    parser.add_argument("--jobs", type=int, default=2, help="side by side (2)")
    parser.add_argument("--trust", action="store_true", help="that all tests pass without mutants")
    parser.add_argument("--list", action="store_true", help="say which these are, and run nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drqueue-mutants-") as above:
        # The tree may change meanwhile.
        clean = Tree(Path(above, "clean"))
        return _all(clean, options)


def _all(clean: Tree, options: argparse.Namespace) -> int:
    root, faults = clean.folder, not options.no_faults
    if not options.random:
        tasks = []
        for name in patches.names():
            if options.only in name:
                files = patches.applied(name, root)
                through = layers(sorted(files), root, seeds=options.sim, faults=faults)
                tasks.append(Task(name, files, through))
        return _report("named mutants", tasks, clean, options, least=NAMED_LEAST / len(patches.names()))
    ended = 0
    for core in [options.core] if options.core else sorted(random_ones.CORES):
        tasks = []
        for mutant in random_ones.drawn(core, options.random, options.seed, root):
            if options.only in mutant.told:
                files = {mutant.path: mutant.applied(root)}
                through = layers([mutant.path], root, seeds=options.sim, faults=False, quick=True)
                tasks.append(Task(f"{mutant.told} (line {mutant.line})", files, through))
        title = f"random mutants of the {core}'s core, seed {options.seed}"
        ended |= _report(title, tasks, clean, options, least=RANDOM_LEAST)
    return ended


def _report(title: str, tasks: list[Task], clean: Tree, options: argparse.Namespace, *, least: float) -> int:
    print(f"{len(tasks)} {title}", flush=True)
    if options.list or not tasks:
        print("\n".join(task.name for task in tasks))
        return 0
    if not options.trust and (red := _red(tasks, clean)):
        print(f"nothing is mutated yet, and this fails: {red}", file=sys.stderr)
        return 1
    survived: list[str] = []

    def tell(task: Task, caught: Caught) -> None:
        if not caught.layer:
            survived.append(task.name)
        row = (task.name, caught.layer or "SURVIVED", caught.test or "-", f"{caught.seconds:.0f}")
        print(" | ".join(row), flush=True)

    _run(tasks, options.jobs, clean.folder, tell)
    count = len(tasks) - len(survived)
    print(f"{count} of {len(tasks)} were caught", flush=True)
    for name in survived:
        print(f"survived: {name}", flush=True)
    return 0 if count >= least * len(tasks) else 1


def _red(tasks: list[Task], clean: Tree) -> str:
    """What fails without a mutant: it would be said to catch them all."""
    merged: dict[str, Layer] = {}
    for layer in (layer for task in tasks for layer in task.through):
        known = merged.get(layer.name, layer)
        command = dict.fromkeys((*known.command, *layer.command))
        merged[layer.name] = Layer(layer.name, tuple(command), layer.seconds)
    return next((found for layer in merged.values() if (found := clean.run(layer))), "")


def _run(tasks: list[Task], jobs: int, root: Path, tell: Callable[[Task, Caught], None]) -> None:
    """All of them, so many side by side, each in a tree of its own."""
    todo: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
    for task in [*tasks, *[None] * jobs]:
        todo.put(task)
    one_at_a_time = threading.Lock()
    failures: list[BaseException] = []

    def work(folder: Path) -> None:
        try:
            tree = Tree(folder, root)
            while (task := todo.get()) is not None and not failures:
                caught = tree.shown(task.files, task.through)
                with one_at_a_time:
                    tell(task, caught)
        except BaseException as error:  # noqa: BLE001 - raised again where somebody sees it
            failures.append(error)

    with tempfile.TemporaryDirectory(prefix="drqueue-mutants-") as above:
        threads = [threading.Thread(target=work, args=(Path(above, str(n)),)) for n in range(jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


if __name__ == "__main__":
    sys.exit(main())
