"""The master's certificate: made once, whole, private, and never silently replaced."""

import datetime
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from drqueue import tls
from drqueue.master import certificate
from drqueue.master.certificate import CERTIFICATE_FILE, KEY_FILE, load_or_make, make_certificate
from drqueue.statefile import StateError


def test_a_certificate_is_self_signed_p_256_for_ten_years() -> None:
    text, key = make_certificate("slave n17")
    made = x509.load_pem_x509_certificate(text.encode())
    made.verify_directly_issued_by(made)
    assert made.subject.rfc4514_string() == "CN=slave n17"
    public = made.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert isinstance(public.curve, ec.SECP256R1)
    assert isinstance(made.signature_hash_algorithm, hashes.SHA256)
    assert 3650 <= (made.not_valid_after_utc - datetime.datetime.now(datetime.UTC)).days + 1 <= 3653
    tls.server_context_from(text, key)


def test_no_two_are_alike() -> None:
    assert make_certificate("a") != make_certificate("a")


@pytest.mark.parametrize("name", ["", "x" * 1000, "\udcff", "n\N{LATIN SMALL LETTER U WITH DIAERESIS}17"])
def test_any_name_will_do(name: str) -> None:
    assert tls.pin_of_pem(make_certificate(name)[0])


def test_certificate_and_key_fit_one_packet_of_the_handshake() -> None:
    text, key = make_certificate("\N{SNOWMAN}" * 64)
    assert len(text) + len(key) < 2048


def test_it_is_made_once_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    os.umask(old := os.umask(0))
    os.umask(0)
    try:
        first = load_or_make(str(tmp_path))
    finally:
        os.umask(old)
    assert load_or_make(str(tmp_path)) == first
    assert sorted(os.listdir(tmp_path)) == [CERTIFICATE_FILE, KEY_FILE]
    assert {os.stat(tmp_path / name).st_mode & 0o777 for name in os.listdir(tmp_path)} == {0o600}
    assert first.pin == tls.pin_of_pem((tmp_path / CERTIFICATE_FILE).read_text())
    first.context()


def test_a_leftover_that_others_can_read_becomes_no_key(tmp_path: Path) -> None:
    leftover = tmp_path / f"{KEY_FILE}.new"
    leftover.write_text("half a key")
    leftover.chmod(0o644)
    load_or_make(str(tmp_path))
    assert os.stat(tmp_path / KEY_FILE).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("step", range(1, 12))
def test_a_crash_at_any_step_leaves_all_or_nothing(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start after it has a whole pair; and where one was in place already, that very one."""
    calls = 0

    class Crash(BaseException):
        pass

    for name in ("open", "fsync", "rename"):
        real = getattr(os, name)

        def crashing(*args: object, real: object = real, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls == step:
                raise Crash
            assert callable(real)
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, crashing)
    try:
        load_or_make(str(tmp_path))
    except Crash:
        pass
    monkeypatch.undo()
    key = (tmp_path / KEY_FILE).read_text() if (tmp_path / KEY_FILE).exists() else None
    made = load_or_make(str(tmp_path))
    assert key in (None, (tmp_path / KEY_FILE).read_text())
    assert load_or_make(str(tmp_path)) == made


@pytest.mark.parametrize("name", [CERTIFICATE_FILE, KEY_FILE])
@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"-----BEGIN CERTIFICATE-----\n"])
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, name: str, data: bytes) -> None:
    load_or_make(str(tmp_path))
    (tmp_path / name).write_bytes(data)
    with pytest.raises(StateError, match=r"tls\.crt.*are damaged: restore both"):
        load_or_make(str(tmp_path))
    assert (tmp_path / name).read_bytes() == data


@pytest.mark.parametrize("name", [CERTIFICATE_FILE, KEY_FILE])
def test_a_missing_file_is_not_made_anew(tmp_path: Path, name: str) -> None:
    load_or_make(str(tmp_path))
    (tmp_path / name).unlink()
    with pytest.raises(StateError, match=f"{name} is missing"):
        load_or_make(str(tmp_path))
    assert len(os.listdir(tmp_path)) == 1


def test_both_files_missing_are_not_made_anew_where_somebody_knows_the_pin(tmp_path: Path) -> None:
    first = load_or_make(str(tmp_path))
    for name in (CERTIFICATE_FILE, KEY_FILE):
        (tmp_path / name).unlink()
    with pytest.raises(StateError, match=r"are missing.*restore both from a backup.*--new-certificate"):
        load_or_make(str(tmp_path), known=True)
    assert os.listdir(tmp_path) == []
    anew = load_or_make(str(tmp_path))
    assert anew.pin != first.pin
    assert load_or_make(str(tmp_path), known=True) == anew


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    load_or_make(str(tmp_path))
    (tmp_path / KEY_FILE).write_text(make_certificate("other")[1])
    with pytest.raises(StateError, match="do not belong together"):
        load_or_make(str(tmp_path))


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    load_or_make(str(tmp_path))
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(StateError, match="chmod 600"):
        load_or_make(str(tmp_path))


@pytest.mark.parametrize("what", ["folder", "fifo", "link"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, what: str) -> None:
    load_or_make(str(tmp_path))
    path = tmp_path / KEY_FILE
    path.rename(tmp_path / "other")
    if what == "folder":
        path.mkdir(mode=0o700)
    elif what == "fifo":
        os.mkfifo(path, 0o600)
    else:
        path.symlink_to(tmp_path / "other")
    with pytest.raises(StateError, match="cannot read"):
        load_or_make(str(tmp_path))


def test_a_folder_that_takes_no_files_is_told(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot write"):
        load_or_make(str(tmp_path / "none"))


def test_cryptography_is_loaded_where_it_is_needed_alone() -> None:
    import subprocess
    import sys

    code = (
        "import sys, drqueue.master.gate, drqueue.master.certificate; sys.exit('cryptography' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert certificate.YEARS == 10
