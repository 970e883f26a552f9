"""The first words: versions, roles, and sentences that say which side to upgrade."""

import pytest

from drqueue.proto import handshake
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.handshake import Answerer, Dialler, HandshakeRejected
from drqueue.proto.link_messages import Beat, Hi, Message, Rejected, Welcome

MASTER = Welcome(version=1, peer="master", software="drqueue 3.1", farm="farm-id", epoch=7)


def speaking(monkeypatch: pytest.MonkeyPatch, oldest: int, newest: int) -> Answerer:
    """A master that speaks these versions."""
    monkeypatch.setattr(handshake, "PROTOCOL_OLDEST", oldest)
    monkeypatch.setattr(handshake, "PROTOCOL_NEWEST", newest)
    return Answerer(MASTER, ("client", "slave"))


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        ((1, 1), (1, 1), 1),
        ((1, 3), (1, 3), 3),
        ((1, 3), (2, 9), 3),
        ((2, 9), (1, 3), 3),
        ((1, 9), (4, 5), 5),
        ((4, 5), (1, 9), 5),
        ((3, 3), (1, 3), 3),
        ((3, 5), (5, 6), 5),
    ],
)
def test_the_newest_common_version_is_spoken(
    monkeypatch: pytest.MonkeyPatch, ours: tuple[int, int], theirs: tuple[int, int], agreed: int
) -> None:
    hi = Hi(role="slave", oldest=theirs[0], newest=theirs[1])
    peer, answer = speaking(monkeypatch, *ours).greeted(hi)
    assert peer is hi
    assert answer == Welcome(version=agreed, peer="master", software="drqueue 3.1", farm="farm-id", epoch=7)


@pytest.mark.parametrize(
    ("ours", "theirs", "sentence"),
    [
        (
            (4, 5),
            (1, 3),
            (
                "this master (drqueue 3.1) speaks protocol 4 to 5, the slave (drqueue 2) speaks 1 to 3: "
                "upgrade the slave"
            ),
        ),
        (
            (1, 3),
            (4, 5),
            (
                "this master (drqueue 3.1) speaks protocol 1 to 3, the slave (drqueue 2) speaks 4 to 5: "
                "upgrade the master"
            ),
        ),
        (
            (2, 2),
            (1, 1),
            "this master (drqueue 3.1) speaks protocol 2, the slave (drqueue 2) speaks 1: upgrade the slave",
        ),
    ],
)
def test_too_old_and_too_new(
    monkeypatch: pytest.MonkeyPatch, ours: tuple[int, int], theirs: tuple[int, int], sentence: str
) -> None:
    hi = Hi(role="slave", software="drqueue 2", oldest=theirs[0], newest=theirs[1])
    peer, answer = speaking(monkeypatch, *ours).greeted(hi)
    assert (peer, answer) == (None, Rejected(code="version", text=sentence, retry=False))


def test_versions_the_wrong_way_round_are_rejected() -> None:
    hi = Hi(role="slave", oldest=9, newest=1)
    assert isinstance(Answerer(MASTER, ("slave",)).greeted(hi)[1], Rejected)


def test_a_role_that_has_no_business_here() -> None:
    answerer = Answerer(Welcome(version=1, peer="slave"), ("client",))
    peer, answer = answerer.greeted(Hi(role="slave"))
    assert peer is None
    assert answer == Rejected(code="wrong-role", text="this slave has no port for a slave")
    assert answerer.greeted(Hi(role="client"))[0] == Hi(role="client")


@pytest.mark.parametrize("message", [Beat(), MASTER, Rejected(code="c", text="t")])
def test_only_hi_may_come_first(message: Message) -> None:
    with pytest.raises(RemoteProtocolError, match="expected Hi"):
        Answerer(MASTER, ("client",)).greeted(message)


def test_who_dials_says_who_it_is() -> None:
    dialler = Dialler("slave", "drqueue 3.1", name="node")
    assert dialler.hi == Hi(oldest=1, newest=1, role="slave", software="drqueue 3.1", name="node")
    assert dialler.answered(MASTER) == MASTER


def test_the_two_sides_understand_each_other() -> None:
    dialler = Dialler("client", "x")
    peer, answer = Answerer(MASTER, ("client",)).greeted(dialler.hi)
    assert peer == dialler.hi
    assert dialler.answered(answer) == MASTER


@pytest.mark.parametrize("retry", [False, True])
def test_no_is_an_answer(retry: bool) -> None:
    with pytest.raises(HandshakeRejected) as caught:
        Dialler("slave", "x").answered(Rejected(code="full", text="too many", retry=retry))
    assert (caught.value.code, caught.value.text, caught.value.retry) == ("full", "too many", retry)


@pytest.mark.parametrize("message", [Beat(), Hi(role="slave")])
def test_only_an_answer_may_follow(message: Message) -> None:
    with pytest.raises(RemoteProtocolError, match="expected Welcome"):
        Dialler("slave", "x").answered(message)


@pytest.mark.parametrize("version", [2, 99])
def test_a_version_that_was_not_offered_is_the_peers_fault(version: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"protocol {version}"):
        Dialler("slave", "x").answered(Welcome(version=version))


def test_the_wrong_port_is_named() -> None:
    with pytest.raises(HandshakeRejected, match="port of a slave, not of a master") as caught:
        Dialler("client", "x").answered(Welcome(version=1, peer="slave"))
    assert (caught.value.code, caught.value.retry) == ("wrong-peer", False)
    with pytest.raises(HandshakeRejected, match="port of a master, not of a slave"):
        Dialler("client", "x", expect="slave").answered(MASTER)
