"""Measure methods against each other on the same work."""

from typing import Any

from amauta.cli._door import Group
from amauta.yardstick.adapters.settings import BenchAdapters

app = Group("bench")


def _show(result: dict[str, Any]) -> str:
    from amauta.yardstick.adapters.tables import as_text

    return as_text(result)


@app.command("adapters", BenchAdapters, show=_show)
def adapters(settings: BenchAdapters) -> dict[str, Any]:
    """Compare six ways to learn a task, and ways to learn another language, by what they train, reach, take and hold.

    The ways are the whole model, Houlsby's adapters, LoRA, BitFit, a prompt and a prefix-layer; the published counts
    for GPT-3 and BERT-large stand beside, counted from their specs. Then a model of one language learns another: all
    of it, its embeddings, adapters, one after the other or both. Results are left in OUT: results.json and a file for
    each run. The same command goes on where it was stopped.

    Examples:
      amauta bench adapters --quick
      amauta bench adapters --only tasks --model smollm2 --tasks sentiment.jsonl --seeds 5 --json
      amauta bench adapters --only languages --source 'en/*.txt' --into 'es/*.txt' --out runs/languages
    """
    from amauta.yardstick.adapters.run import bench

    return bench(settings)
