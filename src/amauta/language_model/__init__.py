"""A model with its tokenizer, ready to use: ``amauta.load(name)`` gives one.

``opening.py`` finds and reads it, ``model.py`` is what it can do, ``answer.py`` is what it gives.
"""

from amauta.language_model.answer import Generation, Stream
from amauta.language_model.model import LanguageModel, Scored
from amauta.language_model.opening import load

__all__ = ["Generation", "LanguageModel", "Scored", "Stream", "load"]
