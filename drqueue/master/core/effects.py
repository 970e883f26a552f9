"""What the master wants done, once what goes with it is saved."""

from dataclasses import dataclass

from drqueue.proto.ids import FrameKey
from drqueue.proto.link_messages import Joined, Message, Rejected
from drqueue.proto.messages import FindLog, ListAttempts, Request


@dataclass(frozen=True, slots=True)
class Tell:
    """Say something on a slave's link."""

    link: int
    message: Message


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer a client's request."""

    client: int
    message: Request


@dataclass(frozen=True, slots=True)
class Unlink:
    """Turn a slave's link away, saying why."""

    link: int
    code: str
    text: str
    retry: bool


@dataclass(frozen=True, slots=True)
class Publish:
    """These changed: whoever watches them wants their latest state."""

    jobs: frozenset[int]
    frames: frozenset[FrameKey]
    slaves: frozenset[int]


@dataclass(frozen=True, slots=True)
class AskHistory:
    """Answer a client's request about a frame from the history of attempts, which memory does not hold."""

    client: int
    request: FindLog | ListAttempts
    layer: int
    number: int


@dataclass(frozen=True, slots=True)
class MailFinished:
    """Mail somebody that a job is finished; `frames` are pictures, `mean_s` the mean time of one."""

    job: int
    to: str
    name: str
    frames: int
    failed: int
    mean_s: float


@dataclass(frozen=True, slots=True)
class AnswerJoin:
    """Answer whoever asked for an account."""

    link: int
    message: Joined | Rejected


@dataclass(frozen=True, slots=True)
class CutClients:
    """Cut the links of clients that showed the secret of these accounts."""

    accounts: frozenset[str]
    text: str


@dataclass(frozen=True, slots=True)
class Audited:
    """The audit has new rows: whoever waits for some is told."""


@dataclass(frozen=True, slots=True)
class Warn:
    """Tell the log what somebody should look at; `fields` are values by name."""

    text: str
    fields: tuple[tuple[str, object], ...] = ()


Effect = (
    Tell | Answer | Unlink | Publish | AskHistory | MailFinished | AnswerJoin | CutClients | Audited | Warn
)
