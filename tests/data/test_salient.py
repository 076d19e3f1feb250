"""Salient spans: dates, numbers and names of English and Spanish, as text and as tokens."""

import numpy as np
import pytest

from amauta.data.salient import choose_salient, salient, salient_tokens


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("She was born on 12 March 1990 in Cuzco.", ["12 March 1990", "Cuzco"]),
        ("Nació el 12 de marzo de 1990 en San Juan de la Cruz.", ["12 de marzo de 1990", "San Juan de la Cruz"]),
        ("On March 12, 1990 about 3,500 people came.", ["March 12, 1990", "3,500"]),
        ("On 1990-03-12, or 12/03/90, it was 40% of 12 %.", ["1990-03-12", "12/03/90", "40%", "12 %"]),
        ("The dog sleeps. It dreams of nothing.", []),
        ("¿Quién vive? El perro y María Núñez.", ["María Núñez"]),
        ("Garcilaso de la Vega wrote it in 1609", ["Garcilaso de la Vega", "1609"]),
        ("ella dijo: Hola", []),
        ("", []),
    ],
)
def test_what_is_salient(text: str, found: list[str]):
    assert [text[start:end] for start, end in salient(text)] == found


def test_the_tokens_of_a_span_are_all_that_touch_it():
    pieces = [" nació", " en", " Ñuñ", "oa", " el", " 1", "2 de", " marzo", "."]
    found = salient_tokens([piece.encode() for piece in pieces])
    assert [pieces[start:end] for start, end in found] == [[" Ñuñ", "oa"], [" 1", "2 de", " marzo"]]
    broken = "Ana ve a Ñu".encode()
    for cut in range(len(broken)):  # also in the middle of a character
        parts = [broken[:cut], broken[cut:]]
        assert all(0 <= start < end <= 2 for start, end in salient_tokens(parts))


def test_as_many_are_chosen_as_fit():
    spans = [(0, 2), (5, 9), (12, 13)]
    for seed in range(50):
        rng = np.random.default_rng(seed)
        chosen = choose_salient(spans, 20, 3, rng)
        assert int(chosen.sum()) in (2, 3) and not chosen[5:9].any()
        assert int(choose_salient(spans, 20, 100, rng).sum()) == 7
        assert int(choose_salient(spans, 20, 3, rng, each=1).sum()) in (1, 2)  # 2 + 1, or 1 + 1: not both
    assert not choose_salient([(0, 4)], 4, 100, np.random.default_rng(0)).any()  # never the whole text
