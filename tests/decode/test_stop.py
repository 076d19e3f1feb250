import pytest
from hypothesis import given
from hypothesis import strategies as st

from amauta.base.errors import ModelError
from amauta.decode.stop import TextStream, cut


def feed(pieces, stops=()):
    """The released parts, one a token and the last from the closing."""
    stream = TextStream(lambda id: pieces[id], stops)
    parts = [stream.push(id) for id in range(len(pieces))]
    return [*parts, stream.close()], stream


def cut_by_reading(text, stops):
    """The same by its definition: read character by character until some stop text stands at the end."""
    for end in range(1, len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            return text[: end - max(len(stop) for stop in ended)]
    return text


def test_an_unfinished_character_is_held_back():
    parts, _ = feed([b"a\xc3", b"\xb1o", b"\xf0\x9f", b"\xa6\x99"])
    assert parts == ["a", "ño", "", "🦙", ""]


def test_bytes_that_never_become_a_character_are_shown_at_the_end():
    parts, _ = feed([b"a", b"\xf0\x9f"])
    assert parts == ["a", "", "\ufffd"]


def test_what_may_begin_a_stop_text_is_held_back():
    parts, stream = feed([b"one\n", b"\nQ", b"x\n\n", b"Q:", b" two"], ["\n\nQ:"])
    assert parts == ["one", "", "\n\nQx", "", "", ""]
    assert stream.stopped == "\n\nQ:" and stream.text == "one\n\nQx"


def test_the_beginning_of_a_stop_text_is_shown_when_nothing_follows():
    parts, stream = feed([b"end\n"], ["\n\n"])
    assert parts == ["end", "\n"] and stream.stopped is None


def test_the_stop_text_that_is_complete_first_wins():
    assert cut("xabcd", ["abcd", "bc"]) == ("xa", "bc")
    assert cut("xabc", ["c", "abc"]) == ("x", "abc")
    assert cut("xyz", ["q"]) == ("xyz", None)


def test_an_empty_stop_text_is_refused():
    with pytest.raises(ModelError, match="stop text is empty"):
        TextStream(lambda id: b"", [""])


STOPS = st.lists(st.text("abñ", min_size=1, max_size=4), max_size=3)


@given(text=st.text("abñ", max_size=30), stops=STOPS, cuts=st.lists(st.integers(0, 60)))
def test_streaming_equals_the_whole_however_it_is_divided(text, stops, cuts):
    raw = text.encode()
    edges = sorted({0, len(raw), *(c for c in cuts if c < len(raw))})
    pieces = [raw[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    parts, stream = feed(pieces, stops)
    assert "".join(parts) == stream.text == cut(text, stops)[0] == cut_by_reading(text, stops)


@given(st.lists(st.binary(max_size=4), max_size=12))
def test_any_bytes_give_the_text_of_the_whole(pieces):
    parts, _ = feed(pieces)
    assert "".join(parts) == b"".join(pieces).decode("utf-8", "replace")
