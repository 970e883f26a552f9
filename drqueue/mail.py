"""The mail that says that a job is finished: composed here, handed to the machine's mail program.

Rules: no shell, ever; a name that people chose is cleaned before it stands in a header, an address that
could be anything but an address is refused; whatever goes wrong is one sentence, in MailError. Blocks for
as long as the mail program takes: to be called in a thread.
"""

import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import unicodedata
from collections.abc import Sequence
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy
from typing import Final

SENDMAIL_AT: Final = ("/usr/sbin/sendmail", "/usr/lib/sendmail")
SENDMAIL_WORDS: Final = ("-t", "-oi")
#: Most characters of a job's name in a mail, of an address, and of what a mail program complained.
NAME_MAX: Final = 200
ADDRESS_MAX: Final = 254
COMPLAINT_MAX: Final = 300

# A dash in front would be an option, a bar or a slash a program or a file to some mail programs.
_LOCAL = r"[A-Za-z0-9_](?:[A-Za-z0-9.!#$%&'*+/=?^_`{}~-]*[A-Za-z0-9!#$%&'*+/=?^_`{}~-])?"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"(?P<local>{_LOCAL})(?:@(?P<domain>{_LABEL}(?:\.{_LABEL})*))?")


class MailError(Exception):
    """A mail that cannot be written or sent; its text is one sentence."""


class _Policy(EmailPolicy):
    """The standard's, but for this: when it folds a header, blanks between two encoded words are lost."""

    def fold(self, name: str, value: str) -> str:
        if str(value).isascii():
            folded: str = super().fold(name, value)
            return folded
        return f"{name}: {Header(str(value), 'utf-8', header_name=name).encode()}\n"

    def fold_binary(self, name: str, value: str) -> bytes:
        return self.fold(name, value).encode("ascii")


# Seven bits: not every mail program on the way takes more.
_POLICY: Final = _Policy(cte_type="7bit")


def compose_finished(
    *,
    to: str,
    sender: str,
    name: str,
    frames: int,
    mean_s: float,
    failed: int = 0,
    job: int | None = None,
) -> EmailMessage:
    """The message for a job of `frames` frames that took `mean_s` seconds each, on average.

    `to` is an address, or several with commas between; a user of this machine needs no domain. Raises
    MailError for what is no address.
    """
    called = _clean(name)
    message = EmailMessage(_POLICY)
    message["Subject"] = f"Your job ({called}) is finished"
    message["From"] = _address(sender, "DrQueue")
    message["To"] = tuple(_address(part.strip(" ")) for part in to.split(","))
    # Answering machines stay silent on this.
    message["Auto-Submitted"] = "auto-generated"
    lines = [
        f"Your job {called if job is None else f'{job} ({called})'} is finished.",
        "",
        f"Total number of frames: {frames}",
        f"Average time per frame: {_duration(mean_s)}",
        f"Total rendering time: {_duration(mean_s * frames)}",
    ]
    if failed:
        lines.insert(3, f"Failed frames: {failed}")
    message.set_content("\n".join(lines) + "\n")
    return message


def send_finished(
    command: str,
    *,
    to: str,
    name: str,
    frames: int,
    mean_s: float,
    failed: int = 0,
    job: int | None = None,
    timeout_s: float = 30,
) -> None:
    """Compose that message and hand it to `command`, or to the system's sendmail where that is "".

    `command` is words as a shell would split them; the message, with its recipients, comes on its stdin.
    Raises MailError: no address, no mail program, one that fails or takes longer than `timeout_s` seconds.
    """
    message = compose_finished(
        to=to, sender=_user(), name=name, frames=frames, mean_s=mean_s, failed=failed, job=job
    )
    words = shlex_words(command) or _sendmail()
    _run(words, message.as_bytes(), timeout_s)


def shlex_words(command: str) -> list[str]:
    """The words of a configured mail command; MailError where quotes are left open."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise MailError(f"the mail command {command!r} cannot be read: {str(error).lower()}") from None
    if "\0" in command:
        raise MailError("the mail command holds a NUL")
    return words


def _sendmail() -> list[str]:
    there = [path for path in SENDMAIL_AT if os.access(path, os.X_OK)]
    path = there[0] if there else shutil.which("sendmail")
    if path is None:
        raise MailError("there is no mail program: install one that brings sendmail, or set mail_command")
    return [path, *SENDMAIL_WORDS]


def _run(words: Sequence[str], message: bytes, timeout_s: float) -> None:
    # Not a pipe: what the mail program leaves running in the background may keep it open for hours.
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=said, stderr=said, start_new_session=True
            )
        except OSError as error:
            raise MailError(f"the mail program {words[0]} cannot be started: {error.strerror}") from error
        with process:
            try:
                process.communicate(message, timeout=timeout_s)
            except subprocess.TimeoutExpired:
                raise MailError(f"the mail program {words[0]} took longer than {timeout_s:g} s") from None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        if process.returncode:
            said.seek(0)
            complaint = _clean(said.read(4 * COMPLAINT_MAX).decode(errors="replace"), COMPLAINT_MAX)
            raise MailError(
                f"the mail program {words[0]} failed with {_status(process.returncode)}"
                f"{': ' if complaint else ''}{complaint}"
            )


def _status(returncode: int) -> str:
    return f"exit status {returncode}" if returncode > 0 else f"signal {-returncode}"


def _address(text: str, display_name: str = "") -> Address:
    match = _ADDRESS.fullmatch(text) if len(text) <= ADDRESS_MAX else None
    if match is None or ".." in text:
        raise MailError(f"no mail can go to {text!r:.80}: it is no address" if text else "nobody to mail to")
    return Address(display_name=display_name, username=match["local"], domain=match["domain"] or "")


def _user() -> str:
    """Who sends: the mail program makes a whole address of it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a user id without an entry, as in containers
        return "drqueue"


def _clean(text: str, most: int = NAME_MAX) -> str:
    """One line without anything that ends it, hides in it, or makes a mail reader decode it."""
    kept = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in text)
    # "=?" begins an encoded word: what follows would be shown as something else.
    line = " ".join(kept.replace("=?", "= ?").split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _duration(seconds: float) -> str:
    """A length of time for people: 4.2 s, 3 min 05 s, 26 h 04 min 09 s."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min {rest:02d} s" if hours else f"{minutes} min {rest:02d} s"
