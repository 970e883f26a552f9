"""Runs targets on damaged inputs, and tells what they may not do.

Rules: a target takes bytes and may raise only what it declares, by its exact type, with one short sentence;
anything else, more than `LIMIT_S` CPU seconds, or a peak of memory far above the one before, is a finding.
The same seed and count of runs are the same inputs. Inputs that fail in a new place are kept as donors.
"""

import atexit
import hashlib
import logging
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import FrameType
from typing import NamedTuple

from tests.fuzz.mutate import Mutate

CORPUS = Path(__file__).parent / "corpus"
LIMIT_S = 1.0
#: Donors that are kept beside the seeds; larger inputs are cut.
_KEPT = 200
_LONGEST_TEXT = 1500
_SHRINKS = 300


class Target(NamedTuple):
    """Something that reads bytes. `run` may raise only `errors`; `runs`: how many take about 1.5 s."""

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    mutate: Mutate
    errors: tuple[type[Exception], ...]
    runs: int
    longest: int = 50_000
    peak_mb: int = 64


class Finding(NamedTuple):
    """An input that did what it may not. `place` tells findings apart, `text` is for people."""

    place: str
    text: str
    data: bytes


class Tally(NamedTuple):
    """What came of one target."""

    runs: int
    seconds: float
    findings: tuple[Finding, ...]


class HangError(BaseException):
    """It took too long. No Exception: the code under test must not catch it."""


def _hang(_number: int, _frame: FrameType | None) -> None:
    raise HangError


@contextmanager
def quiet(limit_s: float = LIMIT_S) -> Iterator[float]:
    """No logging, and the alarm stands ready."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("the alarm needs the main thread")
    former = signal.signal(signal.SIGPROF, _hang)
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    _forget_peak()
    try:
        yield limit_s
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)
        logging.disable(disabled)


def attempt(target: Target, data: bytes, limit_s: float = LIMIT_S) -> tuple[Finding | None, str]:
    """Run a target once, within `quiet`: what is wrong, and where it ended ("" where it said nothing)."""
    before = _peak_kb()
    wrong: BaseException | None = None
    place = ""
    try:
        # CPU time: a busy machine hangs nobody. Again and again, should somebody swallow it after all.
        signal.setitimer(signal.ITIMER_PROF, limit_s, 0.1)
        try:
            target.run(data)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
        place = _place(error)
        if type(error) not in target.errors or not _is_sentence(str(error)):
            wrong = error
    text = ""
    if wrong is not None:
        text = "".join(traceback.format_exception(wrong)[-6:])
    elif (grown := _peak_kb() - before) > target.peak_mb * 1024:
        place, text = "memory", f"the peak of memory grew by {grown >> 10} MB\n"
    return (Finding(place, text, data) if text else None), place


def _forget_peak() -> None:
    """From now on the peak of memory is counted anew, where Linux lets us; it takes half a millisecond."""
    try:
        fd = os.open("/proc/self/clear_refs", os.O_WRONLY)
        try:
            os.write(fd, b"5")
        finally:
            os.close(fd)
    except OSError:
        return  # then only what exceeds every earlier peak is seen


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _is_sentence(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_TEXT and "\n" not in text


def _place(error: BaseException) -> str:
    """Type and the last two places of ours: what is the same there is the same finding."""
    frames = [
        f"{Path(code.co_filename).name}:{line}"
        for code, line in ((frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__))
        if f"{os.sep}drqueue{os.sep}" in code.co_filename or f"{os.sep}fuzz{os.sep}" in code.co_filename
    ]
    if isinstance(error, HangError):
        frames = frames[3:5]
    return " ".join([type(error).__name__, *frames[-2:]])


def inputs(target: Target, seed: int, ended: list[str]) -> Iterator[bytes]:
    """Damaged inputs without end; where each one ended is put into `ended` before the next."""
    rng = Random(f"{target.name} {seed}")
    donors = list(target.seeds())
    seeds, met = len(donors), {""}
    while True:
        data = rng.choice(donors)
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 6))):
            data = target.mutate(rng, data, donors)[: target.longest]
        yield data
        place = ended.pop()
        if place not in met or (not place and rng.random() < 0.02):
            met.add(place)
            if len(donors) < seeds + _KEPT:
                donors.append(data)
            else:
                donors[rng.randrange(seeds, len(donors))] = data


def fuzz(target: Target, seed: int, *, runs: int = 0, seconds: float = 0, limit_s: float = LIMIT_S) -> Tally:
    """So many runs, or so many seconds."""
    began, count = time.monotonic(), 0
    found: dict[str, Finding] = {}
    with quiet(limit_s):
        ended: list[str] = []
        for data in inputs(target, seed, ended):
            if (runs and count >= runs) or (seconds and time.monotonic() - began >= seconds):
                break
            count += 1
            if count % 100 == 0:
                _forget_peak()
            finding, place = attempt(target, data, limit_s)
            ended.append(place)
            if finding is not None and finding.place not in found:
                found[finding.place] = shrunk(target, finding, limit_s)
    return Tally(count, time.monotonic() - began, tuple(found.values()))


def shrunk(target: Target, finding: Finding, limit_s: float = LIMIT_S) -> Finding:
    """The same finding with less input, where that is soon found."""
    if finding.place == "memory" or finding.place.startswith(HangError.__name__):
        return finding
    tries, size = 0, len(finding.data) // 2
    while size and tries < _SHRINKS:
        at = 0
        while at < len(finding.data) and tries < _SHRINKS:
            tries += 1
            less, _ = attempt(target, finding.data[:at] + finding.data[at + size :], limit_s)
            if less is not None and less.place == finding.place:
                finding = less
            else:
                at += size
        size //= 2
    return finding


def keep(target: Target, finding: Finding, corpus: Path = CORPUS) -> Path:
    """Write a finding into the corpus, which the tests replay from now on."""
    path = corpus / target.name / hashlib.sha256(finding.data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(finding.data)
    return path


def kept(target: Target) -> list[Path]:
    """What was found once."""
    folder = CORPUS / target.name
    return sorted(folder.iterdir()) if folder.is_dir() else []


def fuzz_with_atheris(target: Target, seed: int, seconds: float, corpus: Path) -> None:
    """The same, guided by coverage; ends the process: 0, or 1 with findings, after the usual line."""
    import atheris

    began, count = time.monotonic(), 0
    found: dict[str, Finding] = {}
    rng, donors = Random(f"{target.name} {seed}"), list(target.seeds())

    def one(data: bytes) -> None:
        nonlocal count
        count += 1
        finding, _ = attempt(target, data)
        if finding is not None and finding.place not in found:
            found[finding.place] = shrunk(target, finding)
        if time.monotonic() - began >= seconds:
            report(target, Tally(count, time.monotonic() - began, tuple(found.values())), corpus)
            sys.stdout.flush()
            atexit._run_exitfuncs()  # libFuzzer's own way out would not
            os._exit(1 if found else 0)

    def mutate(data: bytes, longest: int, number: int) -> bytes:
        drawn = Random(number)
        if len(data) < 2:
            return rng.choice(donors)[:longest]
        return target.mutate(drawn, data, donors)[: min(longest, target.longest)]

    options = [sys.argv[0], f"-seed={seed + 1}", f"-max_len={target.longest}", "-print_final_stats=0"]
    with quiet():
        atheris.Setup([*options, "-verbosity=0", "-handle_segv=0"], one, custom_mutator=mutate)
        atheris.Fuzz()


def report(target: Target, tally: Tally, corpus: Path = CORPUS) -> None:
    """One line, and every finding below it."""
    rate = tally.runs / tally.seconds if tally.seconds else 0
    print(
        f"{target.name:13} {tally.runs:8} runs {tally.seconds:6.1f} s {rate:7.0f}/s "
        f"{len(tally.findings):3} findings"
    )
    for finding in tally.findings:
        print(f"    {keep(target, finding, corpus)}: {finding.place}")
        print("".join(f"        {line}\n" for line in finding.text.splitlines()), end="")
