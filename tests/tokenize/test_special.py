import pytest

from amauta.base.errors import ConfigError
from amauta.tokenize.special import FOLLOWS, ROLES, SPECIAL, special_tokens


def test_the_eight_stand_in_their_order():
    assert SPECIAL == (
        "<|pad|>", "<|begin|>", "<|end|>", "<|turn|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"
    )  # fmt: skip
    assert len(set(SPECIAL)) == 8


def test_reserved_names_come_after_the_eight():
    assert special_tokens(["[MASK]", "<extra_id_0>", "<|start|>"])[8:] == ("[MASK]", "<extra_id_0>", "<|start|>")


# "MASK" and "<|>" can be one word of a text, and a merge could spell them; the others could join with their neighbours.
@pytest.mark.parametrize("name", ["MASK", "<|>", "", " [MASK]", "[MA SK]", "<_>", "[é]", "|><|", "<extra"])
def test_a_name_that_a_text_could_spell_is_refused(name: str):
    with pytest.raises(ConfigError) as caught:
        special_tokens([name])
    assert caught.value.key == "tokenize.bad-special"
    assert f"'{name}'" in str(caught.value)


@pytest.mark.parametrize("names", [["<|turn|>"], ["[MASK]", "[MASK]"]])
def test_a_name_reserved_twice_is_refused(names: list[str]):
    with pytest.raises(ConfigError, match="twice"):
        special_tokens(names)


def test_every_role_can_stand_somewhere_and_be_followed():
    assert set(FOLLOWS) == {"", *ROLES}
    assert {role for after in FOLLOWS.values() for role in after} == set(ROLES)
