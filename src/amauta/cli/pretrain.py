"""Train a model on text."""

from typing import Any

from amauta.cli._door import command
from amauta.train.settings import Pretrain


@command(Pretrain)
def pretrain(settings: Pretrain) -> dict[str, Any]:
    """Train a model on documents: a decoder to write the next token, or any family by its own objective; the model is
    left in OUT/model.

    Ctrl-C saves and stops; the same command with --resume goes on, and gives the weights that an uninterrupted run
    gives.

    With --as a model is built and trained in the manner of a published one: BERT learns to fill masks, T5 to restore
    spans, ELECTRA to tell what was replaced (its generator is left in OUT/generator). Each setting of a manner can be
    changed by its flag. The special tokens that it needs are reserved by `amauta tokenizer train --for`.

    With --start a model of other people goes on, with the tokenizer that it has; with --train-only embeddings too it
    is adapted to another language: nothing but its embeddings changes.

    Examples:
      amauta pretrain --text corpus/train.jsonl --tokenizer tokenizer --out runs/base --heldout corpus/heldout.jsonl
      amauta pretrain --text 'books/*.txt.gz' --tokenizer tokenizer --out runs/wide --size mini --layers 8 --epochs 2
      amauta pretrain --text corpus/train.jsonl --tokenizer tokenizer --out runs/gpt --size gpt2 --length 256 --resume
      amauta pretrain --text corpus/train.jsonl --tokenizer tokenizer --out runs/bert --as bert --size mini
      amauta pretrain --text corpus/train.jsonl --tokenizer tokenizer --out runs/t5 --as t5 --mask-rate 0.2
      amauta pretrain --text notes.jsonl --start smollm2 --out runs/notes --length 256 --epochs 1
      amauta pretrain --text spanish.jsonl --start runs/base --train-only embeddings --out runs/spanish --steps 200
    """
    from amauta.train.pretrain import pretrain as work

    return work(settings)
