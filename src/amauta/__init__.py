"""amauta: a language model's whole life in one small, exact package.

    import amauta
    model = amauta.load("runs/demo")          # a run, a model folder or a name
    model.generate(["Rosa is"], max_tokens=40)
    amauta.run("demo")                        # a recipe

Names load on first use, so that importing the package (and every ``--help``) imports no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["LanguageModel", "__version__", "load", "run"]

_HOMES = {"load": "amauta.language_model", "LanguageModel": "amauta.language_model", "run": "amauta.recipes.run"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'amauta' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
