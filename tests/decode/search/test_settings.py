import pytest

from amauta.base.errors import ConfigError
from amauta.config import build
from amauta.decode.search.settings import Search, check, effective
from amauta.decode.settings import Sampling


@pytest.mark.parametrize(
    ("search", "key"),
    [
        (Search(beams=4, contrastive_alpha=0.6), "contrastive-beams"),
        (Search(beams=2, returned=3), "returned"),
        (Search(returned=2), "returned"),
        (Search(length_penalty=2.0), "needs-beams"),
        (Search(early_stopping="never"), "needs-beams"),
        (Search(beam_choice="sampled"), "needs-beams"),
        (Search(beam_groups=2, diversity_penalty=1.0), "needs-beams"),
        (Search(beams=5, beam_groups=2, diversity_penalty=1.0), "groups"),
        (Search(beams=4, diversity_penalty=1.0), "diversity"),
        (Search(beams=4, beam_groups=2), "diversity"),
        (Search(beams=4, beam_groups=2, diversity_penalty=1.0, beam_choice="sampled"), "choice"),
        (Search(beams=4, length_penalty=0.0, beam_choice="stochastic"), "choice"),
        (Search(beams=4, early_stopping="true", beam_choice="stochastic"), "choice"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(search, key):
    with pytest.raises(ConfigError) as error:
        check(search, Sampling())
    assert error.value.key == f"search.{key}" and "{" not in str(error.value)


@pytest.mark.parametrize(
    "search",
    [
        Search(),
        Search(beams=4, returned=4, length_penalty=0.0, early_stopping="never"),
        Search(beams=4, beam_groups=2, diversity_penalty=0.5, length_penalty=2.0),
        Search(beams=4, beam_choice="sampled", length_penalty=2.0, early_stopping="true"),
        Search(beams=4, beam_choice="stochastic", returned=3),
        Search(contrastive_alpha=0.6, contrastive_k=8),
    ],
)
def test_settings_that_agree_are_taken(search):
    check(search, Sampling(), given={"max_tokens", "seed"})


def test_draws_need_a_temperature():
    for choice in ("sampled", "stochastic"):
        with pytest.raises(ConfigError, match="temperature"):
            check(Search(beams=2, beam_choice=choice), Sampling(temperature=0))
    check(Search(beams=2), Sampling(temperature=0))


def test_a_setting_that_a_search_cannot_heed_is_refused_only_when_it_was_given():
    one = Sampling(temperature=0.6, top_k=9)  # as a model's generation_config.json may say
    check(Search(beams=2), one)
    for name in ("temperature", "top_k", "top_p", "eta_cutoff"):
        with pytest.raises(ConfigError, match=name):
            check(Search(beams=2), one, given={"max_tokens", name})
        with pytest.raises(ConfigError, match=name):
            check(Search(contrastive_alpha=0.5), one, given={name})
        check(Search(), one, given={name})
        check(Search(beams=2, beam_choice="sampled"), one, given={name})
    assert effective(one, Search(beams=2)).temperature == 0
    assert effective(one, Search(beams=2, beam_choice="sampled")) == one


def test_no_search_together_with_drafts():
    for search in (Search(beams=2), Search(contrastive_alpha=0.1)):
        with pytest.raises(ConfigError, match="drafts"):
            check(search, Sampling(), drafting=True)
    check(Search(), Sampling(), drafting=True)


def test_a_bad_value_is_named():
    for values in (
        {"beams": 0},
        {"early_stopping": "perhaps"},
        {"contrastive_alpha": 1.5},
        {"diversity_penalty": -1.0},
    ):
        with pytest.raises(ConfigError, match=next(iter(values))):
            build(Search, values)
    assert not Search().on and Search(beams=2).on and Search(contrastive_alpha=0.1).on
