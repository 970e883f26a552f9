"""Certificates: the master's own, made at its first start, and those of its slaves' control ports.

Rules: self-signed, for nobody asks an authority; what is trusted is the pin, so a certificate that others
know is never replaced, nor made anew where it is lost, unless that was asked for. Files in the state
directory, 0600: both are whole on the disk, as `*.new`, before the first gets its name, key before
certificate; a start that finds only the key ends the work.
"""

import datetime
import os
import ssl
import stat

from msgspec import Struct

from drqueue import tls
from drqueue.statefile import StateError, sync_dir

CERTIFICATE_FILE = "tls.crt"
KEY_FILE = "tls.key"
YEARS = 10
#: How somebody says that the old ones are lost.
NEW_FLAG = "--new-certificate"
_ANEW = f"and start once with {NEW_FLAG}: then every node and user needs a new line"
_MAX_BYTES = 64 * 1024


class MasterIdentity(Struct, frozen=True):
    """What proves that a master is the farm's: the pin of its certificate, and paths of both files."""

    pin: str
    certificate: str
    key: str

    def context(self) -> ssl.SSLContext:
        """TLS for its port. Raises OSError, ValueError where the files changed since."""
        return tls.server_context(self.certificate, self.key)


def make_certificate(common_name: str) -> tuple[str, str]:
    """A new self-signed certificate and its key, both PEM; takes some milliseconds."""
    # Large, and wanted only at a farm's first start and when a node joins.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    # The standard has 64 bytes for a common name.
    common = common_name.encode("utf-8", "replace")[:64].decode("utf-8", "ignore")
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common or "drqueue")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks differ: nobody should see a certificate of tomorrow.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=YEARS * 365))
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    )


def load_or_make(state_dir: str, *, known: bool = False) -> MasterIdentity:
    """The master's identity from its (locked) state directory; made where there is none. StateError.

    With `known`, others know the pin of the one that there was: then none is made.
    """
    certificate = os.path.join(state_dir, CERTIFICATE_FILE)
    key = os.path.join(state_dir, KEY_FILE)
    try:
        if not os.path.lexists(key) and not os.path.lexists(certificate):
            if known:
                raise StateError(
                    f"{key} and {certificate} are missing, and nodes or users know them: restore both from a "
                    f"backup, or leave them away {_ANEW}"
                )
            _make(certificate, key)
        elif not os.path.lexists(certificate) and os.path.lexists(f"{certificate}.new"):
            os.rename(f"{certificate}.new", certificate)
            sync_dir(state_dir)
    except OSError as error:
        raise StateError(f"cannot write {certificate}: {error.strerror}") from error
    for path, other in ((certificate, key), (key, certificate)):
        if not os.path.lexists(path):
            raise StateError(
                f"{path} is missing, and {other} is there: restore it from a backup, or move that away too "
                f"{_ANEW}"
            )
    text = _read(certificate)
    _read(key)
    damaged = f"restore both from a backup, or move both away {_ANEW}"
    try:
        pin = tls.pin_of_pem(text)
        tls.server_context(certificate, key)
    except ssl.SSLError as error:
        wrong = "do not belong together" if error.reason == "KEY_VALUES_MISMATCH" else "are damaged"
        raise StateError(f"{certificate} and {os.path.basename(key)} {wrong}: {damaged}") from error
    except (OSError, ValueError) as error:
        raise StateError(f"{certificate} and {os.path.basename(key)} are damaged: {damaged}") from error
    return MasterIdentity(pin, certificate, key)


def _make(certificate: str, key: str) -> None:
    texts = make_certificate("drqueue master")
    for path, text in zip((certificate, key), texts, strict=True):
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(fd, "w", encoding="ascii") as file:
            os.fchmod(fd, 0o600)
            file.write(text)
            file.flush()
            os.fsync(fd)
    folder = os.path.dirname(key)
    sync_dir(folder)
    os.rename(f"{key}.new", key)
    sync_dir(folder)
    os.rename(f"{certificate}.new", certificate)
    sync_dir(folder)


def _read(path: str) -> str:
    """The text of one of the files, if nobody else can read it. Raises StateError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise StateError(f"cannot read {path}: it is not a file")
            if info.st_mode & 0o077:
                raise StateError(f"{path} can be read by others: chmod 600 {path}")
            return file.read(_MAX_BYTES).decode("ascii", "replace")
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}") from error
