"""What a model is asked at every step of its life, and what it answers: log-probs at each place of each probe.

The probes are four texts (English, Spanish, code, numbers) and, of a decoder, four that it wrote itself when it was
recorded: so what it was trained for is among them. They are kept as ids, in ``probes.safetensors`` of its folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.models.heads import TABLED
from amauta.models.spec import Spec
from amauta.runs import PROBES, write_atomically

if TYPE_CHECKING:
    from amauta.models.transformer import Transformer
    from amauta.tokenize.either import AnyTokenizer

TEXTS = (
    "The little girl went to the market with her mother, and they bought bread, cheese and three apples.",
    "La casa de mi abuelo está al otro lado del río; allí pasábamos los veranos. ¿Te acuerdas, niña?",
    "def add(a, b):\n    return a + b  # 12345 + 67.89 = ?\n\n\tprint(add(1, 2))",
    "In 1969, two people walked on the Moon; it's 384,400 km away. They'd left the Earth on July 16th!",
)
ROWS, LENGTH = 4, 48  # of random ids, where there is no tokenizer; and of what the model writes itself
BEST = 32  # log-probs kept at each place


@dataclass(frozen=True)
class Record:
    """What a model said of its probes: at each place the log-prob (nats) of what the place asks for (``Answer``), and
    the ``BEST`` likeliest with theirs."""

    rows: tuple[Tensor, ...]  # (T,) ids each
    given: Tensor  # (N,), N the places of all rows
    ids: Tensor  # (N, best)
    logprobs: Tensor  # (N, best)

    def write(self, folder: Path) -> None:
        from safetensors.torch import save

        tensors = {"rows": torch.cat(self.rows), "lengths": torch.tensor([len(row) for row in self.rows]),
                   "given": self.given, "ids": self.ids.int(), "logprobs": self.logprobs}  # fmt: skip
        write_atomically(folder / PROBES, save(tensors))

    @classmethod
    def read(cls, folder: Path) -> "Record | None":
        """That of a model folder, None where there is none. ModelError for a damaged file."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if not (folder / PROBES).is_file():
            return None
        try:
            held = load_file(folder / PROBES)
            rows = held["rows"].split(held["lengths"].tolist())
            return cls(tuple(rows), held["given"], held["ids"].long(), held["logprobs"])
        except (SafetensorError, KeyError, RuntimeError) as error:
            raise ModelError("exchange.damaged", file=folder / PROBES, reason=error) from None


def record(model: "Transformer", tokenizer: "AnyTokenizer | None") -> Record:
    """What the model says now of probes that are chosen for it now."""
    rows = [*texts(tokenizer, model.spec), *own(model, tokenizer)]
    said = answers(model, rows)
    best = [one.logprobs.topk(min(BEST, one.logprobs.shape[-1]), dim=-1) for one in said]
    return Record(
        tuple(row.cpu() for row in rows),
        torch.cat([one.given for one in said]),
        torch.cat([one.indices for one in best]),
        torch.cat([one.values for one in best]),
    )


def texts(tokenizer: "AnyTokenizer | None", spec: Spec) -> list[Tensor]:
    """The probes that are the same for all models, as ids; random ids where there is no tokenizer."""
    if tokenizer is None:
        made = torch.randint(0, spec.vocabulary, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
        return [row[: spec.context] for row in made]
    return [torch.tensor(tokenizer.prompt(text)[: spec.context]) for text in TEXTS]


def own(model: "Transformer", tokenizer: "AnyTokenizer | None") -> list[Tensor]:
    """What a decoder writes at temperature 1 after the token that begins a document; nothing of other models."""
    begin = None if tokenizer is None else tokenizer.begin if tokenizer.begin is not None else tokenizer.end
    if begin is None or not model.writes or model.encoder is not None or not model.caches:
        return []
    return [row.cpu().clone() for row in _written(model, begin, min(LENGTH, model.spec.context))]


@torch.inference_mode()
def _written(model: "Transformer", begin: int, length: int) -> Tensor:
    training, generator = model.training, torch.Generator().manual_seed(0)
    model.eval()
    cache = model.new_cache(ROWS, length)
    ids = torch.full((ROWS, 1), begin, device=model.device)
    for at in range(length - 1):
        positions = torch.full((ROWS, 1), at, device=model.device)
        logits = model.logits(model(ids[:, -1:], positions=positions, cache=cache)[:, -1]).float()
        chance = logits.softmax(-1).cpu()
        ids = torch.cat([ids, torch.multinomial(chance, 1, generator=generator).to(ids.device)], dim=1)
        cache.lengths += 1
    model.train(training)
    return ids


@dataclass(frozen=True)
class Answer:
    """To one row of ids: ``logprobs`` (nats, f32) at each place, (T, V), and ``wanted`` (T,), the id that the place
    asks for, -1 where it asks for none."""

    logprobs: Tensor
    wanted: Tensor

    @property
    def given(self) -> Tensor:
        """The log-prob of what each place asks for, (T,); 0 where it asks for none."""
        asks = (self.wanted >= 0) & (self.wanted < self.logprobs.shape[-1])
        found = self.logprobs.gather(1, self.wanted.clamp(0, self.logprobs.shape[-1] - 1)[:, None])[:, 0]
        return found.where(asks, 0.0)


@torch.inference_mode()
def answers(model: "Transformer", rows: Sequence[Tensor]) -> list[Answer]:
    """What the model says at each place of each row: over the vocabulary, of the next token, or (a masked output) of
    the token itself; of a classifier over its labels, (1, labels); of a model without such an output the softmax of
    its last hidden states stands for them."""
    training = model.training
    model.eval()
    found = [_answer(model, row.to(model.device)) for row in rows]
    model.train(training)
    return found


def _answer(model: "Transformer", row: Tensor) -> Answer:
    ids = row[None]
    both: dict[str, Any] = {"decoder_ids": ids} if model.spec.kind == "encoder-decoder" else {}
    hidden = model(ids, **both)
    table = next((output for output in model.spec.outputs if output in TABLED), None)
    wanted = torch.full_like(row, -1)
    if table is not None:
        said = model.logits(hidden, output=table)[0]
        wanted = row if table == "masked" else torch.cat([row[1:], wanted[:1]])
    else:
        said = model.logits(hidden) if "classifier" in model.spec.outputs else hidden[0]
    return Answer(said.float().log_softmax(-1).cpu(), wanted[: len(said)].cpu())
