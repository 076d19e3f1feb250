"""Is it working? What training on preferences did to the answers, in words, with the remedy for what looks wrong.

The usual question is why the chosen answers lose probability (likelihood displacement: Razin et al. 2024, arXiv
2410.08847): a loss of differences lets both fall. So the answers' log-probs before and after are compared on a probe,
and what the model writes before and after is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amauta.base.messages import say
from amauta.data.batches import Piece
from amauta.metrics import console
from amauta.tokenize.either import AnyTokenizer
from amauta.train.prefer.steps import loss_of

PROBE = 64  # units that are looked at
SHOWN = 3  # samples
UNMOVED, SATURATED = 0.01, 10.0  # of the margin in implicit reward: β times nats
OVERFIT = 0.2  # between the shares right of what was trained on and of what was held out
LONGER, LONGER_CHOSEN = 1.5, 0.6
REPEATED = 0.3  # a rise of the share of a sample's runs of four words that came before in it


@dataclass(frozen=True)
class Probe:
    """Some answers that are looked at before and after. ``wanted[i]`` of ``pieces[i]``; in pairs, they alternate."""

    pieces: list[Piece]
    wanted: np.ndarray  # (N,) bool
    paired: bool
    heldout: bool


@dataclass(frozen=True)
class Change:
    """What training did to a probe; log-probs in nats a whole answer."""

    chosen: float  # mean change of the wanted answers' log-probs
    rejected: float
    fell: float  # share of the wanted answers that became less likely
    accuracy: float  # how often a wanted answer gained more than an unwanted one: its own, or any where unpaired
    alike: float  # share of the shorter answer's tokens with which both answers of a pair begin or end
    longer: float  # share of pairs whose chosen answer is the longer one

    @property
    def margin(self) -> float:
        return self.chosen - self.rejected


def probe_of(units: Sequence[Sequence[Piece]], wanted: Sequence[bool] | None, *, heldout: bool) -> Probe:
    """Units spread evenly over all: pairs, or with ``wanted`` single answers."""
    picked = sorted({int(i) for i in np.linspace(0, len(units) - 1, min(PROBE, len(units)))})
    pieces = [piece for i in picked for piece in units[i]]
    flags = [True, False] * len(picked) if wanted is None else [wanted[i] for i in picked]
    return Probe(pieces, np.array(flags, dtype=bool), wanted is None, heldout)


def prompts_of(probe: Probe, tokenizer: AnyTokenizer, room: int) -> list[tuple[str, list[int]]]:
    """A few prompts of the probe to sample answers to: their last words, and their ids; none beyond ``room`` ids."""
    found: dict[tuple[int, ...], str] = {}
    for piece in probe.pieces:
        ids = tuple(piece.ids[: int(loss_of(piece).argmax()) + 1].tolist())
        if len(ids) <= room and len(found) < SHOWN:
            found[ids] = " ".join(tokenizer.decode(list(ids)).split())[-60:]
    return [(text, list(ids)) for ids, text in found.items()]


def change_of(probe: Probe, before: np.ndarray, after: np.ndarray) -> Change:
    """From the log-probs (N,) of the probe's answers before and after."""
    gained = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    chosen, rejected = gained[probe.wanted], gained[~probe.wanted]
    if probe.paired:
        right = float((chosen > rejected).mean())
    else:
        right = float((chosen[:, None] > rejected[None, :]).mean()) if len(chosen) and len(rejected) else 0.0
    pairs = list(zip(probe.pieces[::2], probe.pieces[1::2], strict=True)) if probe.paired else []
    return Change(
        chosen=_mean(chosen),
        rejected=_mean(rejected),
        fell=_mean(chosen < 0),
        accuracy=right,
        alike=_mean([_shared(_answer(a), _answer(b)) for a, b in pairs]),
        longer=_mean([len(_answer(a)) > len(_answer(b)) for a, b in pairs]),
    )


def verdicts(
    change: Change, beta: float, *, seen: float | None = None, samples: Sequence[tuple[str, str, str]] = ()
) -> dict[str, str]:
    """What looks wrong, by name, each in words with its remedy; ``well`` when nothing does.

    ``beta`` turns nats into implicit reward. ``seen`` is the accuracy on what was trained on, where the probe was not;
    ``samples`` are (prompt, before, after).
    """
    reward, found = beta * change.margin, dict[str, str]()
    if abs(reward) < UNMOVED:
        found["unmoved"] = say("prefer.unmoved", margin=change.margin)
    elif reward < 0:
        found["backwards"] = say("prefer.backwards", margin=-change.margin)
    elif change.chosen < 0:
        found["displaced"] = say("prefer.displaced", fell=-change.chosen, more=-change.rejected, alike=change.alike)
    if reward > SATURATED:
        found["saturated"] = say("prefer.saturated", margin=change.margin, reward=reward)
    if seen is not None and seen - change.accuracy > OVERFIT:
        found["overfit"] = say("prefer.overfit", seen=seen, heldout=change.accuracy)
    lengths = [_mean([len(texts[side]) for texts in samples]) for side in (1, 2)]
    if samples and change.longer > LONGER_CHOSEN and lengths[1] > LONGER * max(1.0, lengths[0]):
        found["longer"] = say("prefer.longer", before=lengths[0], after=lengths[1], share=change.longer)
    repeats = [_mean([repetition(texts[side]) for texts in samples]) for side in (1, 2)]
    if samples and repeats[1] - repeats[0] > REPEATED:
        found["repeats"] = say("prefer.repeats", before=repeats[0], after=repeats[1])
    return found or {"well": say("prefer.well")}


def diagnose(
    probe: Probe, change: Change, found: dict[str, str], samples: Sequence[tuple[str, str, str]]
) -> dict[str, Any]:
    """Print it all for people; returns it for the result."""
    source = "--heldout" if probe.heldout else "--data"
    figures = say(
        "prefer.figures", answers=len(probe.pieces), source=source, chosen=change.chosen, rejected=change.rejected,
        fell=change.fell, accuracy=change.accuracy,
    )  # fmt: skip
    shown = [
        say("prefer.sample", prompt=prompt, before=_line(before), after=_line(after))
        for prompt, before, after in samples
    ]
    for line in [say("prefer.diagnosis"), figures, *found.values(), *shown]:
        console.print(line, markup=False, soft_wrap=True)
    return {
        "verdicts": list(found),
        "remedies": list(found.values()),
        "chosen_change": change.chosen,
        "rejected_change": change.rejected,
        "chosen_fell": change.fell,
        "right": change.accuracy,
        "alike": change.alike,
        "chosen_longer": change.longer,
        "samples": [{"prompt": prompt, "before": before, "after": after} for prompt, before, after in samples],
    }


def repetition(text: str) -> float:
    """The share of a text's runs of four words that stood in it before."""
    words = text.split()
    runs = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _answer(piece: Piece) -> list[int]:
    return piece.ids[1:][loss_of(piece)].tolist()


def _shared(a: list[int], b: list[int]) -> float:
    """The share of the shorter answer's tokens with which both begin or end; each token once."""
    least, same = min(len(a), len(b)), 0
    while same < least and a[same] == b[same]:
        same += 1
    end = 0
    while end < least - same and a[-1 - end] == b[-1 - end]:
        end += 1
    return (same + end) / least if least else 1.0


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
