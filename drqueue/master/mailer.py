"""Mails that finished jobs bring about, sent one after another beside everything else.

Rules: nothing waits for a mail, and a mail that cannot be sent is one line in the log. At most WAITING_MOST
wait; one more is dropped, and said to be. A mail is tried once: what the mail program has taken is its own.
"""

import trio

from drqueue import log
from drqueue.master.core.effects import MailFinished

WAITING_MOST = 1000


class Mailer:
    """Sends mails with a command of words, or with the system's sendmail where that is empty."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._put, self._get = trio.open_memory_channel[MailFinished](WAITING_MOST)

    def send(self, mail: MailFinished) -> None:
        """Queue a mail; never waits."""
        try:
            self._put.send_nowait(mail)
        except trio.WouldBlock:
            log.error("mail dropped: too many wait to be sent", job=mail.job, to=mail.to)

    async def run(self) -> None:
        """Send what is queued until cancelled; a mail under way is left to its program then."""
        async for mail in self._get:
            await trio.to_thread.run_sync(self._send, mail, abandon_on_cancel=True)

    def _send(self, mail: MailFinished) -> None:
        # Most farms send none: the modules that make mails are loaded with the first.
        from drqueue.mail import MailError, send_finished

        try:
            send_finished(
                self._command,
                to=mail.to,
                name=mail.name,
                frames=mail.frames,
                mean_s=mail.mean_s,
                failed=mail.failed,
                job=mail.job,
            )
        except (MailError, OSError) as error:
            log.error("mail not sent", job=mail.job, to=mail.to, why=error)
        else:
            log.event("mail sent", job=mail.job, to=mail.to)
