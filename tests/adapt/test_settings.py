"""The settings of adapters: what is allowed, and what follows from what."""

import pytest

from amauta.adapt.settings import AROUND, BEFORE, CHOSEN, KINDS, Adapters
from amauta.base.errors import ConfigError
from amauta.config import build


def test_every_kind_is_of_one_sort():
    assert sorted((*AROUND, *BEFORE, *CHOSEN)) == sorted(KINDS) and len(set(KINDS)) == len(KINDS)


def test_alpha_is_twice_the_rank():
    assert Adapters(adapter_rank=3).alpha == 6.0 and Adapters(adapter_alpha=5.0).alpha == 5.0
    assert not Adapters().any and Adapters(new_tokens=("<a>",)).any and Adapters(adapter=("lora",)).any


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"adapter_rank": 0}, "adapter_rank' is 0.*greater than 0"),
        ({"adapter_alpha": 0.0}, "adapter_alpha"),
        ({"adapter_dropout": 1.0}, "adapter_dropout"),
        ({"adapter_width": 0}, "adapter_width"),
        ({"adapter_reduction": 0}, "adapter_reduction"),
        ({"adapter_length": 0}, "adapter_length"),
        ({"adapter": ["lara"]}, "Did you mean 'lora'"),
    ],
    ids=str,
)
def test_bad_values_are_named(given: dict[str, object], said: str):
    with pytest.raises(ConfigError, match=f"(?s){said}"):
        build(Adapters, given)
