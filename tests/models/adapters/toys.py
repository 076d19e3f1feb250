"""Small models of every manner, adapters that are no longer the identity, and what a model says."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amauta.adapt.settings import Adapters
from amauta.hub import Found
from amauta.models.adapters import add_tokens, attach
from amauta.models.adapters.folder import write
from amauta.models.exchange.opening import open_model
from amauta.models.spec import Reformer, Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe
from tests.models.test_kinds import SPECS as FAMILIES
from tests.models.test_kinds import made as family_made

SPECS = {
    **FAMILIES,
    "untied": {"tied": False, "bias": True, "norm": "layer"},
    "reformer": {"positions": "learned", "norm": "layer", "gated": False, "bias": True, "qkv_bias": False,
                 "tied": False, "reformer": Reformer(("local", "lsh"), chunk=8, local_chunk=8, hash_seed=3, buckets=4)},
}  # fmt: skip
BEFORE = ("prefix", "prompt", "prefix-layer")
MERGED = ("lora", "dora", "ia3", "norms", "embeddings", "bitfit")
IDS = torch.randint(3, 50, (2, 12), generator=torch.Generator().manual_seed(3))


def model_of(name: str, **changes: object) -> Transformer:
    if name in FAMILIES:
        return family_made(name, **changes)
    fields = {"vocabulary": 50, "context": 32, "width": 32, "layers": 2, "heads": 4, "init_std": 0.2}
    return moved(Transformer.create(Spec(**fields | SPECS[name] | changes), seed=1).eval())


def moved(model: Transformer, amount: float = 0.05, seed: int = 2) -> Transformer:
    """The model with everything that is trained away from its first value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * amount)
    return model


def says(model: Transformer, ids: Tensor = IDS, *, grad: bool = False) -> Tensor:
    """Logits of fixed ids, whatever the kind of the model."""
    given = {"decoder_ids": ids[:, :5]} if model.spec.kind == "encoder-decoder" else {}
    with torch.set_grad_enabled(grad):
        return model.logits(model(ids, **given))


def adapted(model: Transformer, *kinds: str, name: str = "default", seed: int = 4, **settings: object) -> Transformer:
    """The model with a new adapter of these kinds that changes what it says."""
    attach(model, Adapters(adapter=kinds, adapter_length=3, **settings), seed=seed, name=name)  # type: ignore[arg-type]
    return moved(model, 0.1, seed)


def close(found: Tensor, wanted: Tensor) -> None:
    """Equal within 1e-5 of the largest number."""
    torch.testing.assert_close(found, wanted, atol=1e-5 * max(1.0, float(wanted.abs().max())), rtol=1e-5)


WORDS = "the weaver sells wool at the market and the shepherd walks to the village under thunder".split()


@cache
def small_tokenizer() -> Tokenizer:
    return train_bpe([" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))], 300)


def new_model(tokenizer: Any, seed: int = 1, **changes: Any) -> Transformer:
    spec = Spec(**{"vocabulary": tokenizer.size, "width": 32, "layers": 2, "heads": 4, "context": 64} | changes)
    return moved(Transformer.create(spec, seed).eval(), 0.3)


def ids_of(tokenizer: Any) -> torch.Tensor:
    return torch.tensor([tokenizer.encode(" ".join(WORDS))])


@torch.no_grad()
def logits(model: Transformer, ids: torch.Tensor) -> torch.Tensor:
    return model.logits(model(ids))


def made(base: Found, folder: Path, *kinds: str, tokens: tuple[str, ...] = ()) -> tuple[Transformer, Any]:
    """A trained adapter of ``base`` in ``folder``; the model with it, and its tokenizer."""
    model, tokenizer = open_model(base)
    if tokens:
        tokenizer = add_tokens(model, tokenizer, tokens)
    attach(model, Adapters(adapter=kinds, adapter_length=2, new_tokens=tokens), seed=1)  # type: ignore[arg-type]
    write(moved(model, 0.2), tokenizer, base, folder)
    return model, tokenizer
