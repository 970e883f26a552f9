"""What is escaped is filled in as itself."""

from hypothesis import example, given
from hypothesis import strategies as st

from drqueue.proto.placeholders import PlaceholderError, escaped, fill

PIECES = st.sampled_from(["{", "}", "frame", "frames", "start", ":04d", ":", "x", "{{", "}}", " "])


@given(st.lists(PIECES).map("".join))
@example("{frame}")
@example("{{frame}}")
@example("{{{frame:04d}}}")
def test_escaped_text_is_filled_in_as_itself_or_refused(text: str) -> None:
    try:
        assert fill(escaped(text), lambda name: 7) == text
    except PlaceholderError:
        raise AssertionError(text) from None


def test_what_is_no_placeholder_is_left_alone() -> None:
    assert escaped("/a/{b}/${c} {frame4}") == "/a/{b}/${c} {frame4}"
