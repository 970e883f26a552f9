"""Who submits, remembers what was acknowledged, and holds the farm's account against what the frames saw.

Rules: what the master said yes to is written down here, in a process that nobody kills, and nowhere else. A
frame is judged by the ledger it wrote itself. Each violation is one sentence; none is the only good number.
"""

import random
import sys
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import trio

from drqueue.client import AsyncClient, JobChange, JobSpec, LayerSpec
from drqueue.client.errors import DiskFull, MasterUnreachable, NoSuchJob
from drqueue.proto.views import AttemptView, FrameView
from tests.faults import ledger

FRAME = Path(ledger.__file__)
#: What becomes of an order that its slave's daemon, or the keeper, never got, since one of them was killed.
NEVER_BEGUN = ("lost", "keeper-died")


@dataclass(frozen=True)
class Line:
    """One line of a ledger."""

    word: str
    at: float
    attempt: str
    slave: str
    number: int

    @property
    def frame(self) -> str:
        return self.attempt.rpartition("/")[0]


@dataclass
class Told:
    """What the master acknowledged."""

    jobs: dict[int, int] = field(default_factory=dict)
    """Jobs that run, with how many frames."""
    papers: dict[int, int] = field(default_factory=dict)
    """Stopped jobs that only lie there, with the priority last acknowledged (-1: the last was not)."""
    deleted: set[int] = field(default_factory=set)


class Oracle:
    """One farm's, whose frames write to `folder`."""

    def __init__(self, folder: Path, client: AsyncClient, rng: random.Random, most_s: float = 0.3) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.client = client
        self.told = Told()
        self._rng = rng
        self._most_s = most_s
        self._tokens = 0
        self._asked: dict[str, tuple[JobSpec, int]] = {}

    # -- submitting -------------------------------------------------------------------------------

    def spec(self, frames: str, *, stopped: bool = False) -> JobSpec:
        """A job of frames that write to the ledger."""
        argv = (sys.executable, "-I", "-S", str(FRAME), str(self.folder), str(self._most_s))
        layer = LayerSpec(argv=argv, frames=frames, cwd="/", retries=0)
        return JobSpec(name="ledger", layers=(layer,), stopped=stopped)

    async def submit(self, frames: int) -> int:
        """Submit a job of so many frames, and again with the same token: the answer must be the same."""
        first = 1 + self._rng.randrange(1000)
        self._tokens += 1
        token = f"token-{self._tokens}-{self._rng.getrandbits(64)}"
        spec = self.spec(f"{first}-{first + frames - 1}")
        self._asked[token] = spec, frames
        job = await self.client.submit(spec, token=token)
        del self._asked[token]
        self.told.jobs[job] = frames
        if self._rng.random() < 0.2:
            again = await self.client.submit(spec, token=token)
            assert again == job, f"one token made jobs {job} and {again}"
        return job

    async def paper_work(self) -> None:
        """Submit, change or delete a job that nobody runs."""
        papers = self.told.papers
        if len(papers) < 3:
            job = await self.client.submit(self.spec("1-3", stopped=True))
            papers[job] = 500
            return
        job = self._rng.choice(sorted(papers))
        former = papers[job]
        try:
            if self._rng.random() < 0.5:
                papers[job] = -1
                priority = self._rng.randrange(1000)
                await self.client.change_job(job, JobChange(priority=priority))
                papers[job] = priority
            else:
                del papers[job]
                await self.client.delete(job)
                self.told.deleted.add(job)
        except (MasterUnreachable, DiskFull):
            # It may have been done, or not: nothing was promised.
            if job in papers:
                papers[job] = -1
        except NoSuchJob:
            raise AssertionError(f"job {job}, of priority {former}, was acknowledged and is gone") from None

    async def feed(self, *, live: int = 12, frames: int = 6) -> None:
        """Keep so many jobs of up to `frames` frames live until cancelled; change and delete others."""
        while True:
            try:
                if len(await self.client.jobs()) < live + 3:
                    await self.submit(1 + self._rng.randrange(frames))
                await self.paper_work()
            except DiskFull as refusal:
                print(f"not taken: {refusal}")
            await trio.sleep(0.02 + 0.08 * self._rng.random())

    # -- judging ----------------------------------------------------------------------------------

    def lines(self) -> list[Line]:
        """What the frames wrote."""
        path = self.folder / "ledger"
        found = []
        for text in path.read_text().splitlines() if path.exists() else []:
            word, at, attempt, slave, number = text.split()
            found.append(Line(word, float(at), attempt, slave, int(number)))
        return found

    def living(self, at: float) -> int:
        """How many frames lived at that time (CLOCK_BOOTTIME), those left out that wrote no end."""
        lines = self.lines()
        ends = {line.attempt: line.at for line in lines if line.word == "end"}
        return sum(line.at <= at < ends.get(line.attempt, 0) for line in lines if line.word == "start")

    async def finished(self, patience_s: float = 60.0) -> None:
        """Return once every job that there is is over (I2, I11)."""
        # Nobody waited for these answers: perhaps the jobs were made.
        for token, (spec, frames) in self._asked.items():
            self.told.jobs[await self.client.submit(spec, token=token)] = frames
        self._asked.clear()
        with trio.move_on_after(patience_s) as patience:
            there = {view.id for view in await self.client.jobs(all=True)}
            await self.client.wait(sorted(self.told.jobs.keys() & there))
        if patience.cancelled_caught:
            left = [view for view in await self.client.jobs() if view.id in self.told.jobs]
            raise AssertionError(f"after {patience_s:g} s these were not over: {left}")

    async def violations(
        self, *, lost: Collection[str] = (), logs: int = 200, patience_s: float = 60.0
    ) -> list[str]:
        """All that is wrong once every job is over. `lost`: reasons for which frames may be tried again.

        An order that never arrived is none. `logs`: how many frames' logs are compared.
        """
        await self.finished(patience_s)
        lines = self.lines()
        wrong = overlaps(lines)
        by_attempt: dict[str, list[Line]] = defaultdict(list)
        for line in lines:
            by_attempt[line.attempt].append(line)
        known: set[str] = set()
        looked = 0
        for job, wanted in sorted(self.told.jobs.items()):
            try:
                frames = await self.client.frames(job)
            except NoSuchJob:
                wrong.append(f"job {job} was acknowledged and is gone")
                continue
            if len(frames) != wanted:
                wrong.append(f"job {job} has {len(frames)} frames, not {wanted}")
            for frame in frames:
                tries = await self.client.attempts(job, frame.number) if frame.attempt != 1 else ()
                keys = [_key(each) for each in tries] or [f"{job}/{frame.layer}/{frame.index}/1"]
                known.update(keys)
                wrong += judge(frame, tries, [by_attempt[key] for key in keys], lost)
                if looked < logs and not wrong:
                    looked += 1
                    wrong += await self._log(frame)
        print(f"{len(self.told.jobs)} jobs of {sum(self.told.jobs.values())} frames, {len(known)} attempts")
        wrong += [f"attempt {key} ran, and the farm knows nothing of it" for key in {*by_attempt} - known]
        wrong += await self._papers()
        print(f"{len(wrong)} violations")
        return wrong

    async def _log(self, frame: FrameView) -> list[str]:
        log = await self.client.read_log(frame.job, frame.number)
        if log == ledger.log_of(frame.number):
            return []
        return [f"the log of {frame.job}/{frame.number} is {log!r}"]

    async def _papers(self) -> list[str]:
        wrong = []
        there = {view.id: view.priority for view in await self.client.jobs(all=True)}
        for job, priority in self.told.papers.items():
            if job not in there:
                wrong.append(f"job {job}, which never ran, was acknowledged and is gone")
            elif priority not in (-1, there[job]):
                wrong.append(f"job {job} was given priority {priority} and has {there[job]}")
        wrong += [f"job {job} was deleted and is there" for job in self.told.deleted & {*there}]
        return wrong


def _key(attempt: AttemptView) -> str:
    return f"{attempt.job}/{attempt.layer}/{attempt.frame}/{attempt.attempt}"


def overlaps(lines: list[Line]) -> list[str]:
    """Two lives of one frame at a time, by the frames' own clocks (I3)."""
    wrong = [f"{line.attempt} met another life of its frame" for line in lines if line.word == "overlap"]
    # What was killed wrote no end: there the lock alone tells.
    ends = {line.attempt: line.at for line in lines if line.word == "end"}
    starts: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line.word == "start":
            starts[line.frame].append(line)
    for lives in starts.values():
        for one in lives:
            wrong += [
                f"{other.attempt} began before {one.attempt} ended"
                for other in lives
                if other is not one and one.at <= other.at < ends.get(one.attempt, one.at)
            ]
    return wrong


def judge(
    frame: FrameView, tries: tuple[AttemptView, ...], lives: list[list[Line]], lost: Collection[str]
) -> list[str]:
    """What is wrong about one frame (I2, I4, and what the farm says of its exit)."""
    name = f"{frame.job}/{frame.layer}/{frame.index} (number {frame.number})"
    wrong = []
    code = ledger.code_of(frame.number)
    wanted = "FAILED" if code else "DONE"
    if frame.state != wanted or frame.code != code:
        why = f"{frame.reason} {frame.text}".strip()
        wrong.append(f"{name} is {frame.state} with code {frame.code} ({why}), not {wanted} with {code}")
    for at, lines in enumerate(lives):
        words = Counter(line.word for line in lines)
        if words["start"] > 1:
            wrong.append(f"attempt {at + 1} of {name} was started {words['start']} times")
        latest = at == len(lives) - 1
        if latest and (words["start"], words["end"]) != (1, 1):
            wrong.append(f"the last attempt of {name} wrote {dict(words)}")
        # An order that never arrived is no life.
        if not latest and (words or tries[at].reason not in NEVER_BEGUN) and tries[at].reason not in lost:
            text = f"{tries[at].reason!r}: {tries[at].text}"
            wrong.append(f"{name} was tried again after {text}, having written {dict(words)}")
    return wrong
