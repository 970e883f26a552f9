"""What the master wants done, once what goes with it is saved."""

from msgspec import Struct

from drqueue.proto.ids import FrameKey
from drqueue.proto.link_messages import Joined, Message, Rejected
from drqueue.proto.messages import FindLog, ListAttempts, Request


class Tell(Struct, frozen=True):
    """Say something on a slave's link."""

    link: int
    message: Message


class Answer(Struct, frozen=True):
    """Answer a client's request."""

    client: int
    message: Request


class Unlink(Struct, frozen=True):
    """Turn a slave's link away, saying why."""

    link: int
    code: str
    text: str
    retry: bool


class Publish(Struct, frozen=True):
    """These changed: whoever watches them wants their latest state."""

    jobs: frozenset[int]
    frames: frozenset[FrameKey]
    slaves: frozenset[int]


class AskHistory(Struct, frozen=True):
    """Answer a client's request about a frame from the history of attempts, which memory does not hold."""

    client: int
    request: FindLog | ListAttempts
    layer: int
    number: int


class MailFinished(Struct, frozen=True):
    """Mail somebody that a job is finished; `frames` are pictures, `mean_s` the mean time of one."""

    job: int
    to: str
    name: str
    frames: int
    failed: int
    mean_s: float


class AnswerJoin(Struct, frozen=True):
    """Answer whoever asked for an account."""

    link: int
    message: Joined | Rejected


class CutClients(Struct, frozen=True):
    """Cut the links of clients that showed the secret of these accounts."""

    accounts: frozenset[str]
    text: str


class Audited(Struct, frozen=True):
    """The audit has new rows: whoever waits for some is told."""


class Warn(Struct, frozen=True):
    """Tell the log what somebody should look at; `fields` are values by name."""

    text: str
    fields: tuple[tuple[str, object], ...] = ()


Effect = (
    Tell | Answer | Unlink | Publish | AskHistory | MailFinished | AnswerJoin | CutClients | Audited | Warn
)
