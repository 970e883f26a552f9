"""The client library's names: the two clients are twins, and what is promised is there."""

import inspect
import re
import subprocess
import sys

import drqueue.client
from drqueue.client import AsyncClient, Client

#: For this package's own modules, or what only a trio program needs.
ONLY_ASYNC = {"linked", "stand_watch", "read", "direct", "direct_at", "direct_here", "audit_end"}
ONLY_SYNC = {"close"}
#: How the blocking client calls what the other one returns.
TWINS = {
    "Pages": "Iterator",
    "LogStream": "Stream[bytes]",
    "Changes": "Stream[Changed]",
    "AuditRows": "Stream[AuditView]",
}


def methods(cls: type) -> dict[str, inspect.Signature]:
    found = inspect.getmembers(cls, inspect.isfunction)
    return {name: inspect.signature(value) for name, value in found if not name.startswith("_")}


def spelled(annotation: object) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"\b(?:[a-z_]+\.)+", "", text)
    for name, twin in TWINS.items():
        text = re.sub(rf"\b{name}\b", twin, text)
    return text


def test_both_clients_have_the_same_methods() -> None:
    assert methods(AsyncClient).keys() - ONLY_ASYNC == methods(Client).keys() - ONLY_SYNC


def test_their_methods_take_the_same_and_return_the_same() -> None:
    other = methods(Client)
    for name, signature in methods(AsyncClient).items():
        if name in ONLY_ASYNC:
            continue
        assert list(signature.parameters.values()) == list(other[name].parameters.values()), name
        assert spelled(signature.return_annotation) == spelled(other[name].return_annotation), name


def test_every_public_method_says_what_it_does() -> None:
    for cls in (AsyncClient, Client):
        for name in methods(cls):
            assert getattr(cls, name).__doc__, f"{cls.__name__}.{name}"


def test_every_exported_name_exists_and_is_listed() -> None:
    for name in drqueue.client.__all__:
        assert getattr(drqueue.client, name).__name__ == name
    assert set(drqueue.client._HOME_OF) == set(drqueue.client.__all__)


def test_importing_the_package_costs_nothing_heavy() -> None:
    code = (
        "import sys, drqueue.client, drqueue.client.cli.main as main; main.run(['--help']);"
        "print('trio' in sys.modules, 'rich' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split()[-2:] == ["False", "False"]
