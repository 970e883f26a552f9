"""Mails that the master sends: with a real program, none of them in anybody's way."""

from pathlib import Path

import pytest
import trio

from drqueue.master.core.effects import MailFinished
from drqueue.master.mailer import WAITING_MOST, Mailer
from tests.e2e.helpers import until

MAIL = MailFinished(job=7, to="ada@example.org", name="shot 12", frames=4, failed=1, mean_s=2.5)


@pytest.fixture
def post(tmp_path: Path) -> Path:
    """A mail program that keeps each mail in a folder of its own, and the folder."""
    box = tmp_path / "box"
    box.mkdir()
    program = tmp_path / "sendmail"
    program.write_text(f'#!/bin/sh\ncat > "{box}/.$$"\nmv "{box}/.$$" "{box}/mail.$$"\n')
    program.chmod(0o755)
    return program


async def arrived(box: Path, count: int) -> list[str]:
    async def all_there() -> bool:
        return len(list(box.glob("mail.*"))) >= count  # noqa: ASYNC240  (a folder in memory, or nearly so)

    await until(f"{count} mails", all_there)
    return [path.read_text() for path in box.glob("mail.*")]  # noqa: ASYNC240


async def test_a_mail_goes_to_the_program(post: Path, nursery: trio.Nursery) -> None:
    mailer = Mailer(str(post))
    nursery.start_soon(mailer.run)
    mailer.send(MAIL)
    mailer.send(MAIL)
    texts = await arrived(post.parent / "box", 2)
    assert all("To: ada@example.org" in text and "Your job (shot 12) is finished" in text for text in texts)
    assert all("Failed frames: 1" in text and "Total number of frames: 4" in text for text in texts)
    nursery.cancel_scope.cancel()


async def test_one_that_fails_is_a_line_in_the_log_and_the_next_goes_out(
    post: Path, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    mailer = Mailer(str(post))
    nursery.start_soon(mailer.run)
    mailer.send(MailFinished(job=8, to="-oQ/tmp", name="x", frames=1, failed=0, mean_s=1))
    mailer.send(MAIL)
    assert len(await arrived(post.parent / "box", 1)) == 1
    assert "mail not sent" in caplog.text
    nursery.cancel_scope.cancel()


async def test_more_than_may_wait_are_dropped_aloud(caplog: pytest.LogCaptureFixture) -> None:
    mailer = Mailer("/bin/false")
    for _ in range(WAITING_MOST):
        mailer.send(MAIL)
    assert "mail dropped" not in caplog.text
    mailer.send(MAIL)
    assert "mail dropped" in caplog.text
