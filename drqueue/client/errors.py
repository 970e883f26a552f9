"""What can go wrong for a client, as exceptions whose text is one sentence for people.

`Refused` and its kin are answers: somebody heard the request and said no; `code` is for programs.
The others mean that no answer came.
"""

from typing import ClassVar


class DrQueueError(Exception):
    """Base of everything that the client library raises on purpose."""


class MasterUnreachable(DrQueueError):  # noqa: N818  (reads as what it says)
    """No master answered, or the link broke before an answer came.

    `nobody`: nothing listens where a master of this machine was looked for, and there is no login.
    """

    def __init__(self, text: str, *, nobody: bool = False) -> None:
        super().__init__(text)
        self.nobody = nobody


class VersionMismatch(DrQueueError):  # noqa: N818
    """Master and client share no version of the protocol; the text says which side to upgrade."""


class NotLoggedIn(DrQueueError):  # noqa: N818
    """There is no login for a master, none that may be used, or the master knows it no more."""


class WrongCertificate(DrQueueError):  # noqa: N818
    """Whoever answers at a master's address shows another certificate than the one that was pinned."""


class FarmFailed(DrQueueError):  # noqa: N818
    """A farm on this machine could not be started, or one of its daemons ended."""


class Refused(DrQueueError):  # noqa: N818
    """The request was understood and not done; `code` says why to programs, the text to people."""

    codes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class NotFound(Refused):
    """Something that was named does not exist."""


class NoSuchJob(NotFound):
    """There is no such job (any more)."""

    codes = ("no-such-job",)


class NoSuchLayer(NotFound):
    """The job has no such layer."""

    codes = ("no-such-layer",)


class NoSuchFrame(NotFound):
    """The layer has no such frame, or the frame no such attempt."""

    codes = ("no-such-frame", "no-such-attempt")


class NoSuchSlave(NotFound):
    """No slave goes by that name, host name or address."""

    codes = ("no-such-slave",)


class AmbiguousSlave(NotFound):
    """Several slaves go by that name; the text names them."""

    codes = ("ambiguous-slave",)


class NoSuchLimit(NotFound):
    """No limit of that name was set."""

    codes = ("no-such-limit",)


class NoSuchShare(NotFound):
    """That user or project was given nothing of that pool."""

    codes = ("no-such-share",)


class NoSuchAccount(NotFound):
    """No account goes by that name, id or code; or several do, and the text says how to tell them apart."""

    codes = ("no-such-account", "ambiguous")


class NotAllowed(Refused):
    """Whoever asks may not do that."""

    codes = ("not-allowed",)


class BadRequest(Refused):
    """What was asked for makes no sense: a malformed range, a job without a command, too much at once."""

    codes = (
        "bad-range",
        "bad-job",
        "bad-limit",
        "bad-limits",
        "bad-name",
        "bad-net",
        "bad-pool",
        "bad-request",
        "bad-role",
        "bad-share",
        "too-large",
    )


class BadState(Refused):
    """It cannot be done to a thing in that state."""

    codes = ("bad-state",)


class NotLinked(Refused):
    """The slave has no link to the master and cannot be asked."""

    codes = ("not-linked",)


class DiskFull(Refused):
    """The master's disk is full: nothing that would have to be kept is accepted."""

    codes = ("disk-full",)


_BY_CODE: dict[str, type[Refused]] = {
    code: cls
    for cls in (
        NoSuchJob,
        NoSuchLayer,
        NoSuchFrame,
        NoSuchSlave,
        AmbiguousSlave,
        NoSuchLimit,
        NoSuchShare,
        NoSuchAccount,
        NotAllowed,
        BadRequest,
        BadState,
        NotLinked,
        DiskFull,
    )
    for code in cls.codes
}


def refused(code: str, text: str) -> Refused:
    """The exception for a refusal; plain `Refused` for a code that this version does not know."""
    return _BY_CODE.get(code, Refused)(code, text)
