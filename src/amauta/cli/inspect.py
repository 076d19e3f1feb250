"""Look into models: a preference pair token by token."""

from typing import Any

from amauta.cli._door import Group
from amauta.inspect.settings import InspectPair

app = Group("inspect")


def _shown(result: dict[str, Any]) -> str:
    from amauta.inspect.table import as_text

    return as_text(result)


@app.command("pair", InspectPair, show=_shown)
def pair(settings: InspectPair) -> dict[str, Any]:
    """Show a preference pair token by token: what a model learnt of it, and what token-wise methods make of it.

    Of every token of both answers: log-probs of the model and its reference, log-ratio and implicit reward, KL, SePO's
    score (with an oracle), SparsePO's masks (where they were learnt), MaPO's mask, and where the model looked. With
    --out all of it is a page.

    Examples:
      amauta inspect pair --model runs/polite --data pairs.jsonl --out pair.html
      amauta inspect pair --model runs/polite --reference runs/chat --data pairs.jsonl --row 7
      amauta inspect pair --model runs/polite --oracle runs/dpo --data pairs.jsonl --json
    """
    from dataclasses import asdict

    from amauta.inspect.pair import inspect_pair

    found = inspect_pair(settings)
    told: dict[str, Any] = {"where": found.where, "beta": found.beta, "margin": found.margin, **found.names}
    for name, side in (("chosen", found.chosen), ("rejected", found.rejected)):
        plain = asdict(side)
        told[name] = {**side.totals(), "texts": [side.tokens[place] for place in side.places], **plain["figures"]}
    if settings.out is not None:
        from amauta.inspect.page import save_page

        save_page(found, settings.out)
        told["page"] = str(settings.out)
    return told
