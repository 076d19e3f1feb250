"""Adapters of a language model: several on one base, switched on and off between calls."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from amauta.base.errors import ModelError
from amauta.hub import find_model
from amauta.models.adapters import switch
from amauta.models.adapters.reading import check_base, put_on, spec_over
from amauta.models.exchange.opening import weight_files
from amauta.tokenize.files import load_tokenizer

if TYPE_CHECKING:
    from amauta.language_model.model import LanguageModel


def add(owner: "LanguageModel", folder: str | Path, name: str) -> None:
    """Put the adapter in ``folder`` on the model under ``name``, switched on, and all others off.

    ModelError: no adapter there, one for another base (the fingerprints are compared where the model's files are
    known), a name that is taken, one that changes what the model gives (another output).
    """
    found = find_model(folder)
    if found.kind != "adapter":
        raise ModelError("adapters.no-adapter", path=folder)
    if owner.found is not None:
        check_base(found.path, owner.found, weight_files(owner.found))
    model, before = owner.model, [other for other, on in names(owner).items() if on]
    if name in model.adapters:
        raise ModelError("adapters.name-taken", name=name)
    if spec_over(model.spec, found.path).outputs != model.spec.outputs:
        raise ModelError("adapters.other-outputs", folder=folder)
    switch(model, ())
    try:
        put_on(model, found.path, name=name)
    except ModelError:
        switch(model, before)
        raise
    model.requires_grad_(False).eval()
    tokenizer = load_tokenizer(found.path)
    if tokenizer is not None:
        owner.retokenize(tokenizer)


def names(owner: "LanguageModel") -> dict[str, bool]:
    """The adapters of the model, and which are on."""
    return {name: one.on for name, one in getattr(owner.model, "adapters", {}).items()}


@contextmanager
def using(owner: "LanguageModel", wanted: str | Sequence[str] | None) -> Iterator[None]:
    """Only these adapters on for a while; None: as it is."""
    if wanted is None:
        yield
        return
    before = [name for name, on in names(owner).items() if on]
    switch(owner.model, [wanted] if isinstance(wanted, str) else wanted)
    try:
        yield
    finally:
        switch(owner.model, before)
