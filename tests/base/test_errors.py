"""Errors: a key and its fields, said in the user's language, with the exit code that the door gives."""

import pickle

import pytest

from amauta.base import errors
from amauta.base.errors import AmautaError, ConfigError, Interrupted, MissedGoal

CLASSES = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, AmautaError)]


def test_the_text_comes_from_the_catalogue():
    error = ConfigError("base.did-you-mean", name="steps")
    assert str(error) == "Did you mean 'steps'?"
    assert (error.key, error.fields) == ("base.did-you-mean", {"name": "steps"})


def test_the_text_is_in_the_language_of_the_moment_when_it_is_said(monkeypatch: pytest.MonkeyPatch):
    error = ConfigError("base.did-you-mean", name="steps")
    monkeypatch.setenv("AMAUTA_LANG", "es")
    assert str(error) == "¿Quiso decir 'steps'?"


def test_exit_codes():
    """0 and 70 are not here: nothing went wrong, or it was a bug of ours."""
    codes = {cls.__name__: cls.exit_code for cls in CLASSES}
    assert codes.pop("MissedGoal") == 1 == MissedGoal("base.allowed", names="").exit_code
    assert codes.pop("Interrupted") == 130 == Interrupted("base.allowed", names="").exit_code
    assert len(codes) == 5 and set(codes.values()) == {2}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_error_comes_whole_out_of_another_process(cls: type[AmautaError]):
    """What a worker of multiprocessing raises is pickled there and read here."""
    again = pickle.loads(pickle.dumps(cls("base.allowed", names="a, b")))
    assert type(again) is cls and (again.key, again.fields) == ("base.allowed", {"names": "a, b"})
    assert (str(again), again.exit_code) == ("Allowed: a, b.", cls.exit_code)
