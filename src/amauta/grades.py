"""How right answers are: the measures that GLUE and SQuAD report, from scikit-learn and SciPy (the extra ``eval``).

Accuracy, exact match and the F1 of words need neither.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from amauta.base.errors import ConfigError
from amauta.base.names import one_of

Z = 1.959964  # the normal quantile of a 95 % interval
Measure = Callable[[Sequence[Any], Sequence[Any]], float]  # (right answers, given ones) → [-1, 1]


def grades(
    measures: Sequence[str], right: Sequence[Any], given: Sequence[Any], *, classes: int = 2
) -> dict[str, float]:
    """Each measure of the given answers. A class of -1 is one that was not among the labels, and so is wrong."""
    return {name: f1(right, given, classes) if name == "f1" else MEASURES[name](right, given) for name in measures}


def wilson(hits: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of ``hits`` in ``n`` (Wilson 1927, the score interval)."""
    if not n:
        return 0.0, 1.0
    share, z2 = hits / n, Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_interval(
    values: Sequence[float], lowest: float = -math.inf, highest: float = math.inf
) -> tuple[float, float, float]:
    """The mean of a few independent values and its 95 % interval by Student's t (1908), within ``lowest`` and
    ``highest``; a single value tells nothing of its spread."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, lowest, highest
    half = student(n - 1) * math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return mean, max(lowest, mean - half), min(highest, mean + half)


def student(degrees: int, share: float = 0.95) -> float:
    """The t within which ``share`` of Student's distribution lies, ± t: 12.706 for one degree of freedom at 0.95."""
    low, high = 0.0, math.pi / 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < share else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _within(angle: float, degrees: int) -> float:
    """P(|T| <= sqrt(degrees) tan(angle)) (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * math.cos(angle) ** 2
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def check_extra(measures: Sequence[str]) -> None:
    """ConfigError, before any work, for a measure that is not known, or whose library is not installed."""
    for name in measures:
        if name not in MEASURES:
            raise ConfigError("finetune.unknown-measure", name=name, hint=one_of(name, MEASURES))
        if name in BORROWED:
            _extra()


def _extra() -> tuple[Any, Any]:
    try:
        import scipy.stats
        import sklearn.metrics
    except ImportError as error:
        raise ConfigError("finetune.no-extra", package=error.name or "scikit-learn") from None
    return sklearn.metrics, scipy.stats


def accuracy(right: Sequence[Any], given: Sequence[Any]) -> float:
    return sum(a == b for a, b in zip(right, given, strict=True)) / max(1, len(right))


def f1(right: Sequence[Any], given: Sequence[Any], classes: int = 2) -> float:
    """Of class 1 where there are two classes, as GLUE has it; else the mean over classes (macro)."""
    counted = [1] if classes == 2 else list(range(classes))
    return float(_extra()[0].f1_score(right, given, labels=counted, average="macro", zero_division=0.0))


def matthews(right: Sequence[Any], given: Sequence[Any]) -> float:
    """Matthews' correlation; 0 where the denominator is 0."""
    return float(_extra()[0].matthews_corrcoef(right, given))


def pearson(right: Sequence[float], given: Sequence[float]) -> float:
    """NaN where one side is constant: there is no correlation then."""
    if len(set(right)) < 2 or len(set(given)) < 2:
        return float("nan")
    return float(_extra()[1].pearsonr(right, given)[0])


def spearman(right: Sequence[float], given: Sequence[float]) -> float:
    if len(set(right)) < 2 or len(set(given)) < 2:
        return float("nan")
    return float(_extra()[1].spearmanr(right, given)[0])


def words_of(text: str) -> list[str]:
    """Lower case, without punctuation and English articles (Rajpurkar et al. 2016, arXiv 1606.05250, in their code)."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def exact_match(right: Sequence[Sequence[str]], given: Sequence[str]) -> float:
    """The share of texts that are one of the right answers, word for word; no right answer: the text must be empty."""
    hits = [words_of(text) in [words_of(one) for one in ones or [""]] for ones, text in zip(right, given, strict=True)]
    return sum(hits) / max(1, len(hits))


def token_f1(right: Sequence[Sequence[str]], given: Sequence[str]) -> float:
    """The mean F1 of the words shared with the best of the right answers."""
    best = [max(_shared(one, text) for one in ones or [""]) for ones, text in zip(right, given, strict=True)]
    return sum(best) / max(1, len(best))


def _shared(right: str, given: str) -> float:
    a, b = words_of(right), words_of(given)
    if not a or not b:
        return float(a == b)
    same = sum((Counter(a) & Counter(b)).values())
    return 2 * same / (len(a) + len(b))


MEASURES: dict[str, Measure] = {
    "accuracy": accuracy, "f1": f1, "matthews": matthews, "pearson": pearson, "spearman": spearman,
    "exact_match": exact_match, "token_f1": token_f1,
}  # fmt: skip
BORROWED = ("f1", "matthews", "pearson", "spearman")
USUAL: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "f1", "matthews"),
    "regression": ("pearson", "spearman"),
    "choice": ("accuracy",),
    "span": ("exact_match", "token_f1"),
    "text": ("exact_match", "token_f1"),
}
