"""Fine-tune a model on a task: classes, numbers, pairs, spans, choices, texts."""

from typing import Any

from amauta.cli._door import command
from amauta.train.finetune.settings import Finetune


@command(Finetune)
def finetune(settings: Finetune) -> dict[str, Any]:
    """Fine-tune a model on the records of a task and grade it on held-out ones. The model is left in OUT/model.

    Classifiers open in transformers as the matching ForSequenceClassification; what finds spans, as
    ForQuestionAnswering. The file of --config may hold a task whole: its columns,
    labels, input and rates.

    Examples:
      amauta finetune --model minilm --task train.jsonl --heldout dev.jsonl --out runs/sentiment --seeds 5 --json
      amauta finetune --model minilm --task sts.jsonl --text a --pair b --label score --kind regression --out runs/sts
      amauta finetune --model smollm2 --manner gpt --task nli.jsonl --labels no yes --out runs/nli --lr 6.25e-5
      amauta finetune --model runs/t5 --manner t5 --task cola.jsonl --input "cola sentence: {text}" --out runs/cola
    """
    from amauta.train.finetune.run import finetune as work

    return work(settings)
