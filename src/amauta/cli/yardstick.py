"""Compare four families of language models on one corpus at equal FLOPs."""

from typing import Any

from amauta.cli._door import command
from amauta.yardstick.settings import Yardstick


def _show(result: dict[str, Any]) -> str:
    from amauta.yardstick.tables import as_text

    return as_text(result)


@command(Yardstick, show=_show)
def yardstick(settings: Yardstick) -> dict[str, Any]:
    """Compare an n-gram model, an encoder, an encoder-decoder and a decoder: one corpus, one tokenizer, as many FLOPs.

    They are measured in bits per byte, by minimal pairs and by tasks that they learn, with several seeds. Three
    questions are asked again beside it: the T5 table of architectures and objectives, whether next-sentence prediction
    helps, and what pretraining saves. Results are left in OUT: results.json, plots, a file for each system and seed.
    The same command goes on where it was stopped.

    Examples:
      amauta yardstick --quick
      amauta yardstick --quick --only families nsp --json
      amauta yardstick --corpus 'books/*.txt' --minimal-pairs blimp.jsonl --out yardstick --page results.md
      amauta yardstick --corpus 'books/*.txt' --plan
    """
    from amauta.yardstick.run import yardstick as work

    return work(settings)
