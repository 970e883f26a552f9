"""The mail about a finished job: what it says, whom it may go to, and what is said of a mail program."""

import email
import email.policy
import os
import pwd
import re
import signal
import sys
import unicodedata
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue import mail
from drqueue.mail import MailError, compose_finished, send_finished

JOB: dict[str, Any] = {"to": "anna@example.com", "name": "shot 12", "frames": 24, "mean_s": 83.2}


def composed(**other: Any) -> EmailMessage:
    return compose_finished(**{"sender": "farm@example.com", **JOB, **other})


def parsed(data: bytes) -> EmailMessage:
    return email.message_from_bytes(data, _class=EmailMessage, policy=email.policy.default)


def mail_program(folder: Path, body: str = "") -> str:
    """A command that writes its words and its stdin into files of `folder`, then does what `body` says."""
    script = folder / "a mail program"
    script.write_text(
        f"#!{sys.executable}\nimport os, pathlib, signal, subprocess, sys, time\n"
        f"here = pathlib.Path({str(folder)!r})\n"
        "(here / 'words').write_text('\\n'.join(sys.argv[1:]))\n"
        "(here / 'message').write_bytes(sys.stdin.buffer.read())\n" + body
    )
    script.chmod(0o755)
    return str(script)


# -- what it says -----------------------------------------------------------------------------------------


def test_the_mail_tells_frames_and_times() -> None:
    message = composed(job=7)
    assert message["Subject"] == "Your job (shot 12) is finished"
    assert (message["To"], message["From"]) == ("anna@example.com", "DrQueue <farm@example.com>")
    assert message.get_content() == (
        "Your job 7 (shot 12) is finished.\n"
        "\n"
        "Total number of frames: 24\n"
        "Average time per frame: 1 min 23 s\n"
        "Total rendering time: 33 min 17 s\n"
    )


def test_failed_frames_are_told_where_there_are_any() -> None:
    said = composed(failed=2).get_content()
    assert "Total number of frames: 24\nFailed frames: 2\n" in said
    assert "Total rendering time: 33 min 17 s\n" in said  # the mean times all of them
    assert "ailed" not in composed(failed=0).get_content()


def test_without_a_number_the_job_has_its_name() -> None:
    assert composed().get_content().startswith("Your job shot 12 is finished.\n")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0.0 s"),
        (4.24, "4.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (3599.6, "1 h 00 min 00 s"),
        (93849.0, "26 h 04 min 09 s"),
    ],
)
def test_lengths_of_time(seconds: float, shown: str) -> None:
    assert f"Average time per frame: {shown}\n" in composed(mean_s=seconds).get_content()


@given(name=st.text(max_size=300))
def test_whatever_a_job_is_called_the_mail_has_its_headers_and_no_other(name: str) -> None:
    """It also parses back, and the name is what it was but for blanks and what cannot be seen."""
    message = parsed(composed(name=name).as_bytes())
    assert sorted(set(message.keys()) - {"Content-Type", "Content-Transfer-Encoding", "MIME-Version"}) == [
        "Auto-Submitted", "From", "Subject", "To",
    ]  # fmt: skip
    assert (message["To"], message["From"]) == ("anna@example.com", "DrQueue <farm@example.com>")
    assert message.defects == []
    subject = str(message["Subject"])
    assert subject.startswith("Your job (")
    assert subject.endswith(") is finished")
    shown = subject.removeprefix("Your job (").removesuffix(") is finished")
    assert [char for char in shown if unicodedata.category(char)[0] == "C"] == []
    assert message.get_content().splitlines()[0] == f"Your job {shown} is finished."
    if len(name) < mail.NAME_MAX and "=?" not in name:
        assert shown.replace(" ", "") == "".join(c for c in name if unicodedata.category(c)[0] not in "CZ")


@pytest.mark.parametrize(
    "name",
    [
        "a\nBcc: everybody@example.com",
        "a\r\n\r\nbody",
        "a\x85b\u2028c\vd\x00e",
        "=?utf-8?q?a=0ABcc:_everybody=40example.com?=",
        "\udcff" + "é" * 200,
        "x" * 1000,
        "% $(touch x) `y` ; | & ' \"",
    ],
)
def test_hostile_names(name: str) -> None:
    data = composed(name=name).as_bytes()
    message = parsed(data)
    assert message["Bcc"] is None
    assert str(message["Subject"]).isprintable()
    assert all(len(line) < 200 for line in data.splitlines())
    assert "\n" not in str(message["Subject"])
    assert message.get_content().count("\n") == 5


@pytest.mark.parametrize("name", ["𜼀𜼀 " * 30 + "x", "é ü " * 45 + "é", "Häuser am Meer, zweiter Schnitt " * 6])
def test_blanks_in_long_names_are_kept(name: str) -> None:
    wanted = " ".join(name.split())
    data = composed(name=name).as_bytes()
    assert parsed(data)["Subject"] == f"Your job ({wanted}) is finished"
    assert max(map(len, data.splitlines())) <= 78


def test_a_name_that_looks_encoded_is_not_decoded() -> None:
    message = parsed(composed(name="=?utf-8?q?=C3=A9?=").as_bytes())
    assert message["Subject"] == "Your job (= ?utf-8?q?=C3=A9?=) is finished"


# -- whom it goes to ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "header"),
    [
        ("anna", "anna"),
        ("a.b+farm@mail.example.com", "a.b+farm@mail.example.com"),
        ("anna,bob@example.com", "anna, bob@example.com"),
        ("root@localhost", "root@localhost"),
    ],
)
def test_addresses(to: str, header: str) -> None:
    assert parsed(composed(to=to).as_bytes())["To"] == header


@pytest.mark.parametrize(
    "to",
    [
        "", ",", "a,", "-oQ/tmp", "a,-Xfile", "a b", "anna\n", "a\nBcc: b@example.com", "a\0", "a\x7f",
        "a\u00a0b", "|cmd", "/etc/passwd", ":include:/x", "a@b@c", "a@", "@b", "a..b@c", "a.@b", "a@-b",
        "a@b-", "a@b..c", "<a@b>", "a(b)@c", '"a b"@c', "a;b", "a\\b", "é@b", "a@é", "a" * 255,
        "=?utf-8?q?a?=\t@b",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(to: str) -> None:
    with pytest.raises(MailError) as caught:
        composed(to=to)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(MailError):
        send_finished("/bin/true", **{**JOB, "to": to})


def test_the_sender_is_held_to_the_same() -> None:
    with pytest.raises(MailError, match="it is no address"):
        composed(sender="a\nBcc: b")


@given(st.text(max_size=40) | st.from_regex(mail._ADDRESS) | st.from_regex(r"[-\w.|/<>,:@ \n]{1,20}"))
def test_any_text_is_the_one_recipient_or_is_refused(to: str) -> None:
    try:
        composed(to=to)
    except MailError as error:
        said = str(error)
    else:
        said = ""
    assert len(said.splitlines()) <= 1
    if said:
        return
    message = parsed(composed(to=to).as_bytes())
    assert [str(one) for one in message["To"].addresses] == to.split(",")
    assert message.defects == []
    assert message["Bcc"] is None
    assert all(not one.startswith("-") for one in to.split(","))
    assert not re.search(r"[\s\x00-\x1f]", to)


# -- the mail program ---------------------------------------------------------------------------------------


def test_a_configured_program_gets_the_message_and_its_words(tmp_path: Path) -> None:
    """Words as a shell would split them, and nothing of a shell beyond that."""
    program = mail_program(tmp_path)
    send_finished(f"'{program}' -t '$HOME;' \"a b\" >x", **JOB, failed=1, job=3)
    assert (tmp_path / "words").read_text().splitlines() == ["-t", "$HOME;", "a b", ">x"]
    data = (tmp_path / "message").read_bytes()
    message = parsed(data)
    sender = pwd.getpwuid(os.getuid()).pw_name
    assert (message["To"], message["From"]) == ("anna@example.com", f"DrQueue <{sender}>")
    wanted = compose_finished(**JOB, sender=sender, failed=1, job=3)
    assert data == wanted.as_bytes()
    assert data.isascii()


def test_without_one_the_systems_sendmail_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Path(mail_program(tmp_path))
    monkeypatch.setattr(mail, "SENDMAIL_AT", (str(tmp_path / "none"), str(there)))
    send_finished("", **JOB)
    assert (tmp_path / "words").read_text().splitlines() == ["-t", "-oi"]
    (tmp_path / "words").unlink()
    there.rename(tmp_path / "sendmail")
    monkeypatch.setattr(mail, "SENDMAIL_AT", (str(tmp_path / "none"),))
    monkeypatch.setenv("PATH", str(tmp_path))
    send_finished("  ", **JOB)
    assert (tmp_path / "words").read_text().splitlines() == ["-t", "-oi"]
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(MailError, match="there is no mail program: install one that brings sendmail, or"):
        send_finished("", **JOB)


def test_places_where_sendmail_is_looked_for() -> None:
    assert mail.SENDMAIL_AT == ("/usr/sbin/sendmail", "/usr/lib/sendmail")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sys.exit(75)", "failed with exit status 75"),
        ("print('no\\x07 route\\n', file=sys.stderr); sys.exit(1)", "failed with exit status 1: no route"),
        ("print('x' * 10**6); sys.exit(1)", "failed with exit status 1: " + "x" * 299 + "…"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "failed with signal 15"),
    ],
)
def test_a_program_that_fails_is_one_sentence(body: str, said: str, tmp_path: Path) -> None:
    program = mail_program(tmp_path, body)
    with pytest.raises(MailError) as caught:
        send_finished(f"'{program}'", **JOB)
    assert str(caught.value) == f"the mail program {program} {said}"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("/nowhere/mail -t", "the mail program /nowhere/mail cannot be started: No such file or directory"),
        ("/etc", "the mail program /etc cannot be started: Permission denied"),
        ("mail 'x", 'the mail command "mail \'x" cannot be read: no closing quotation'),
        ("a\0b", "the mail command holds a NUL"),
    ],
)
def test_a_program_that_cannot_be_started(command: str, said: str) -> None:
    with pytest.raises(MailError) as caught:
        send_finished(command, **JOB)
    assert str(caught.value) == said


def test_a_program_that_reads_nothing_is_no_trouble() -> None:
    send_finished("/bin/true", **{**JOB, "name": "x" * 10_000})


@pytest.mark.slow
def test_a_program_that_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    """Both it and its child hold a pipe open: that comes to its end when they do."""
    pipe, script, started = tmp_path / "pipe", tmp_path / "slow.sh", tmp_path / "started"
    os.mkfifo(pipe)
    script.write_text(f"exec >'{pipe}'\nsleep 1000 &\ntouch '{started}'\nsleep 1000\n")
    with os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        os.set_blocking(reader.fileno(), True)
        for seconds in (0.5, 5.0, 50.0):  # a busy machine may need long for the start alone
            with pytest.raises(MailError, match=f"the mail program sh took longer than {seconds:g} s"):
                send_finished(f"sh '{script}'", **JOB, timeout_s=seconds)
            if started.exists():
                break
        assert started.exists()
        assert reader.read() == b""


@pytest.mark.slow
def test_what_a_mail_program_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    """It delivers in the background, with its output still open."""
    script, pid = tmp_path / "quick.sh", tmp_path / "pid"
    script.write_text(f"cat >/dev/null\nsleep 1000 &\necho $! >'{pid}'\n")
    try:
        send_finished(f"sh '{script}'", **JOB, timeout_s=50)
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
