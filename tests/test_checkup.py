"""Every look of the examination: well, worth a word, bad; and what hangs holds nobody up."""

import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from drqueue import checkup
from drqueue.proto.lines import pin_of
from drqueue.proto.views import Finding


def a_certificate() -> tuple[str, str, str]:
    """A new certificate and its key (PEM), and its pin."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    began = datetime(2020, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(began)
        .not_valid_after(began + timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM).decode()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return pem, secret, pin_of(made.public_bytes(serialization.Encoding.DER))


CERTIFICATE, KEY, PIN = a_certificate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    return path


def written(path: Path, text: str = "x", mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


# -- looks at once ------------------------------------------------------------------------------------------


def test_findings_come_in_the_order_of_the_looks() -> None:
    first_may_end = threading.Event()

    def first() -> Finding:
        first_may_end.wait(10)
        return checkup.ok("a", "1")

    def second() -> Finding:
        first_may_end.set()
        return checkup.ok("b", "2")

    assert [found.what for found in checkup.looked([("a", first), ("b", second)])] == ["a", "b"]


def test_a_look_that_hangs_is_bad_and_holds_nobody_up() -> None:
    release = threading.Event()

    def hangs() -> Finding:
        release.wait()
        return checkup.ok("share", "late")

    began = time.monotonic()
    try:
        share, disk = checkup.looked(
            [("share", hangs), ("disk", lambda: checkup.ok("disk", "fine"))], patience_s=0.1
        )
    finally:
        release.set()
    assert time.monotonic() - began < 5
    assert (share.what, share.state, disk.state) == ("share", "bad", "ok")


def test_looks_that_hang_are_bounded_and_make_room_again() -> None:
    release = threading.Event()

    def hangs() -> Finding:
        release.wait()
        return checkup.ok("x", "late")

    try:
        many = checkup.looked([("x", hangs)] * 40, patience_s=0.1)
        assert sum("earlier looks" in found.text for found in many) == 40 - 32
    finally:
        release.set()
    deadline = time.monotonic() + 10
    while checkup.looked([("x", lambda: checkup.ok("x", "now"))])[0].state != "ok":
        assert time.monotonic() < deadline


def test_a_look_that_cannot_look_is_bad_and_a_bug_is_raised() -> None:
    def denied() -> Finding:
        raise PermissionError(13, "Permission denied")

    def bug() -> Finding:
        raise ZeroDivisionError

    (found,) = checkup.looked([("disk", denied)])
    assert (found.state, found.text) == ("bad", "cannot be looked at: Permission denied")
    with pytest.raises(ZeroDivisionError):
        checkup.looked([("x", bug)])


# -- files --------------------------------------------------------------------------------------------------


def test_a_private_folder_is_well(folder: Path) -> None:
    written(folder / "master.db")
    with socket.socket(socket.AF_UNIX) as listener:
        # How far a socket is open is a setting.
        listener.bind(str(folder / "s"))
        (folder / "s").chmod(0o666)
        assert checkup.private_folder("state", str(folder), ("tls.key",)).state == "ok"


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o750, 0o777])
def test_a_folder_that_is_open_to_others_is_bad(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    found = checkup.private_folder("state", str(folder))
    assert (found.state, found.advice) == ("bad", f"chmod 700 {folder}")


def test_an_open_secret_is_bad_another_open_file_worth_a_word(folder: Path) -> None:
    written(folder / "master.db", mode=0o644)
    assert checkup.private_folder("state", str(folder), ("tls.key",)).state == "warn"
    written(folder / "tls.key", mode=0o640)
    found = checkup.private_folder("state", str(folder), ("tls.key",))
    assert (found.state, found.advice) == ("bad", f"chmod 600 {folder}/tls.key")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_is_bad(folder: Path) -> None:
    os.chown(written(folder / "farm.json"), 12345, -1)
    found = checkup.private_folder("state", str(folder))
    assert found.state == "bad"
    assert "farm.json" in found.text


def test_a_folder_that_is_none_is_bad(tmp_path: Path) -> None:
    assert checkup.private_folder("state", str(tmp_path / "missing")).state == "bad"
    assert checkup.private_folder("state", str(written(tmp_path / "file"))).state == "bad"


def test_a_secret_file_is_the_owners_alone(tmp_path: Path) -> None:
    missing = checkup.ok("access", "none")
    path = tmp_path / "access.json"
    assert checkup.private_file("access", str(path), missing) is missing
    assert checkup.private_file("access", str(path / "below"), missing).state == "ok"
    written(path)
    assert checkup.private_file("access", str(path), missing).state == "ok"
    path.chmod(0o604)
    found = checkup.private_file("access", str(path), missing)
    assert (found.state, found.advice) == ("bad", f"chmod 600 {path}")
    assert checkup.private_file("access", str(tmp_path), missing).state == "bad"


def test_room_on_a_disk(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize // checkup.MB
    assert checkup.disk_room("disk", str(tmp_path), 0, 0).state == "ok"
    assert checkup.disk_room("disk", str(tmp_path), free * 2 + 10, 0).state == "warn"
    assert checkup.disk_room("disk", str(tmp_path), free * 2 + 10, free * 2 + 10).state == "bad"
    assert checkup.disk_room("disk", str(tmp_path / "missing")).state == "bad"


def test_a_disk_that_cannot_be_written_is_bad() -> None:
    found = checkup.disk_room("disk", "/proc/self")
    assert found.state == "bad"
    assert "write" in found.text or "read-only" in found.text


@pytest.fixture
def files_limit() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    yield used
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_open_files(files_limit: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_limit + 200, hard))
    assert checkup.open_files(files_limit + 200).state == "ok"
    assert checkup.open_files(files_limit + 201).state == "warn"
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_limit + 1, hard))
    assert checkup.open_files(1).state == "bad"


# -- clocks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "files", "state"),
    [
        (True, (), "ok"),
        (False, (), "warn"),
        (False, ("/run/systemd/timesync/synchronized",), "ok"),
        # The program runs, but the kernel knows that it does not succeed.
        (False, ("/run/chrony",), "warn"),
        (None, ("/run/chrony",), "ok"),
        (None, (), "warn"),
    ],
)
def test_whether_a_clock_is_kept_right(kernel: bool | None, files: tuple[str, ...], state: str) -> None:
    assert checkup.clock_set(lambda: kernel, lambda path: path in files).state == state


def test_the_kernel_can_be_asked_about_its_clock() -> None:
    assert checkup.kernel_clock_synchronised() in (True, False, None)


@given(st.floats(-1e6, 1e6))
def test_the_distance_of_two_clocks(off: float) -> None:
    found = checkup.clock_against(1e9, "the master", own=1e9 + off)
    far = abs((1e9 + off) - 1e9)
    assert found.state == ("ok" if far < 2 else "warn" if far < 60 else "bad")
    if far >= 2:
        assert ("ahead" in found.text) == (off > 0)
        assert f"{far:.1f} s" in found.text


# -- programs, certificates ---------------------------------------------------------------------------------


def test_versions() -> None:
    assert checkup.version("the master", "drqueue 1", "drqueue 1").state == "ok"
    assert checkup.version("the master", "drqueue 2", "drqueue 1").state == "warn"
    assert checkup.version("the master", "", "drqueue 1").state == "warn"


def test_a_certificate_and_its_key(folder: Path) -> None:
    certificate, key = written(folder / "tls.crt", CERTIFICATE), written(folder / "tls.key", KEY)

    def look(pin: str = "") -> Finding:
        return checkup.certificate_files("certificate", str(certificate), str(key), pin)

    assert look().state == look(PIN).state == "ok"
    assert PIN[:12] in look().text
    assert "others know" in look("a" * 52).text
    assert look("a" * 52).state == "bad"
    key.chmod(0o644)
    assert look().advice == f"chmod 600 {key}"
    key.unlink()
    assert look().state == "bad"
    written(key, KEY)
    certificate.unlink()
    assert look().state == "bad"


@pytest.mark.parametrize(
    ("certificate", "key"),
    [
        ("", KEY),
        ("nonsense", KEY),
        (CERTIFICATE[:-60], KEY),
        (CERTIFICATE, ""),
        (CERTIFICATE, KEY[:100]),
        (CERTIFICATE, a_certificate()[1]),
        (KEY, CERTIFICATE),
    ],
    ids=["no certificate", "nonsense", "cut", "no key", "cut key", "another key", "the wrong way round"],
)
def test_a_damaged_certificate_is_bad(certificate: str, key: str) -> None:
    assert checkup.check_certificate("certificate", certificate, key).state == "bad"


def test_a_key_with_a_password_asks_nobody_for_it() -> None:
    locked = serialization.load_pem_private_key(KEY.encode(), None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"word"),
    )
    assert checkup.check_certificate("certificate", CERTIFICATE, locked.decode()).state == "bad"


def test_no_key_is_told(folder: Path) -> None:
    """Findings go to terminals, bug reports and chat rooms."""
    found = checkup.check_certificate("certificate", CERTIFICATE, KEY, "a" * 52)
    assert not any(line in found.text + found.advice for line in KEY.splitlines())


# -- frames -------------------------------------------------------------------------------------------------


def test_whom_frames_run_as() -> None:
    me = checkup.user_name()
    assert checkup.frames_user("render", 4711).state == "ok"
    assert checkup.frames_user(None, 4711).state == "warn"
    assert checkup.frames_user(me, os.geteuid()).state == "warn"
    assert "root" in checkup.frames_user(None, 0).text
    assert checkup.frames_user("root", 4711).state == "bad"


# -- words --------------------------------------------------------------------------------------------------


def test_words() -> None:
    assert checkup.user_name(0) == "root"
    assert checkup.user_name(3999999999) == "user id 3999999999"
    assert [checkup.amount(mb) for mb in (0, 1023, 1024, 1 << 20)] == ["0 MB", "1023 MB", "1.0 GB", "1.0 TB"]
    assert checkup.listed(["b", "a"]) == "a, b"
    assert checkup.listed(map(str, range(9)), 2) == "0, 1 and 7 more"
