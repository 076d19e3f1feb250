"""The language is the user's, and a message is found, filled and said in it."""

import pytest

from amauta.base import messages
from amauta.base.messages import language, say, translated

VARIABLES = ("AMAUTA_LANG", "LC_ALL", "LC_MESSAGES", "LANG")


@pytest.fixture
def speak(monkeypatch: pytest.MonkeyPatch):
    """``speak(LANG="es_PE.UTF-8")``: an environment with these variables of language and no others."""

    def change(**variables: str) -> None:
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return change


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, "en"),
        ({"LANG": "es_PE.UTF-8"}, "es"),
        ({"LANG": "ES"}, "es"),
        ({"LANG": "en_GB.UTF-8"}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "qu_PE"}, "en"),  # a language that is not spoken here
        ({"LC_MESSAGES": "es_ES", "LANG": "en_US"}, "es"),
        ({"LC_ALL": "en_US", "LC_MESSAGES": "es_ES", "LANG": "es_ES"}, "en"),
        ({"AMAUTA_LANG": "es", "LC_ALL": "en_US", "LANG": "en_US"}, "es"),
        ({"AMAUTA_LANG": "fr", "LC_ALL": "es_ES"}, "en"),  # asked for and not spoken: English, not the next variable
        ({"AMAUTA_LANG": "", "LC_ALL": "", "LANG": "es_MX"}, "es"),  # empty is not given
    ],
)
def test_the_language(speak, variables: dict[str, str], wanted: str):
    speak(**variables)
    assert language() == wanted


def test_the_language_is_asked_for_each_time(speak):
    speak(AMAUTA_LANG="es")
    assert say("cli.interrupted") == "Interrumpido."
    speak(AMAUTA_LANG="en")
    assert say("cli.interrupted") == "Interrupted."


def test_blanks_are_filled():
    assert say("base.did-you-mean", name="{steps}") == "Did you mean '{steps}'?"  # what is filled in is left as it is


@pytest.mark.parametrize("key", ["base.no-such-message", "base"])
def test_a_message_that_does_not_exist_is_our_bug(key: str):
    with pytest.raises(KeyError):
        say(key)


def test_a_blank_that_is_not_filled_is_our_bug():
    with pytest.raises(KeyError, match="name"):
        say("base.did-you-mean")


def test_help_is_english_as_it_stands_in_the_code_or_its_translation(speak, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(messages, "translations", lambda: {"Loop": {"steps": {"of": "000000", "es": "pasos"}}})
    speak(AMAUTA_LANG="en")
    assert translated("Loop", "steps", "steps") == "steps"
    speak(AMAUTA_LANG="es")
    assert translated("Loop", "steps", "steps") == "pasos"
    assert translated("Loop", "rate", "rate") == translated("Other", "rate", "rate") == "rate"  # a user's own settings


def test_help_in_english_reads_no_translations(speak, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(messages, "translations", lambda: pytest.fail("read for nothing"))
    speak(AMAUTA_LANG="en")
    assert translated("Loop", "steps", "steps") == "steps"
