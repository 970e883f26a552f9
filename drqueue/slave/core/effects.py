"""What the slave's core wants done once its records are kept. PURE: plain data."""

from msgspec import Struct

from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Held, Message
from drqueue.proto.model import RunOrder
from drqueue.slave.core.processes import ForgetProcess, SignalTree
from drqueue.slave.core.records import Before


class Prepare(Struct, frozen=True):
    """Look how the order's outputs lie there now; answered by OutputsSeen or LaunchFailed."""

    order: RunOrder


class Start(Struct, frozen=True):
    """Start the order's command; answered by ProcessStarted or LaunchFailed. Twice for one key is once."""

    order: RunOrder


class Verify(Struct, frozen=True):
    """Look whether the order's outputs were written; answered by Verified."""

    order: RunOrder
    before: Before


class SayHello(Struct, frozen=True):
    """Introduce this slave with all it holds, in parts."""

    link: int
    held: tuple[Held, ...]


class Send(Struct, frozen=True):
    """Send on this link; if it is gone, nowhere."""

    link: int
    message: Message


class KeepLog(Struct, frozen=True):
    """Send the ends of an ended attempt's log."""

    link: int
    key: AttemptKey


class RemoveScratch(Struct, frozen=True):
    """The scratch directory of this attempt is not needed any longer."""

    key: AttemptKey


class Unlink(Struct, frozen=True):
    """Give the link up, say why once, and try again after a while."""

    link: int
    text: str


class Answer(Struct, frozen=True):
    """Answer a request."""

    asker: object
    message: Message


class Alive(Struct, frozen=True):
    """Answer to Ping: whatever watches over this daemon may know."""


class AllEnded(Struct, frozen=True):
    """Every process is gone, as LeaveAsked wanted."""


Effect = (
    Prepare
    | Start
    | Verify
    | SayHello
    | Send
    | KeepLog
    | RemoveScratch
    | Unlink
    | Answer
    | Alive
    | AllEnded
    | SignalTree
    | ForgetProcess
)
