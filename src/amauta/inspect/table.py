"""A pair's tokens as a table for the terminal."""

from typing import Any

from amauta.base.messages import say

COLUMNS = {
    "ratio": "inspect.ratio", "reward": "inspect.reward", "kl": "inspect.kl", "score": "inspect.score",
    "mask_reward": "inspect.mask-reward", "mask_divergence": "inspect.mask-divergence", "mapo": "inspect.mapo",
}  # fmt: skip
LONGEST, NUMBER = 24, 8  # characters of a token's text, and of a number


def as_text(result: dict[str, Any]) -> str:
    """Where the page was written, the margin, and each answer's tokens with their figures; SePO's choice by a star."""
    lines = [f"{say('inspect.margin')} {result['margin']:.4g}  β {result['beta']:.4g}  {result['where']}"]
    for name, word in (("chosen", "inspect.chosen"), ("rejected", "inspect.rejected")):
        side = result[name]
        columns = [each for each in COLUMNS if isinstance(side.get(each), list)]
        heads = [say("inspect.token"), *(say(COLUMNS[each]).rjust(NUMBER) for each in columns)]
        totals = f"{say('inspect.ratio')} {side['ratio_sum']:.4g}, {say('inspect.kl')} {side['kl_sum']:.4g}"
        lines += ["", f"{say(word)}: {totals}", "  ".join([heads[0].ljust(LONGEST + 1), *heads[1:]])]
        marks = side.get("selected", [0.0] * len(side["texts"]))
        for i, text in enumerate(side["texts"]):
            shown = repr(text)[1:-1][:LONGEST] + ("*" if marks[i] else "")
            cells = (f"{side[each][i]:.4f}".rjust(len(head)) for each, head in zip(columns, heads[1:], strict=True))
            lines.append("  ".join([shown.ljust(LONGEST + 1), *cells]))
    if "page" in result:
        lines += ["", str(result["page"])]
    return "\n".join(lines)
