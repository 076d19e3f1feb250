"""Modified Kneser-Ney as lmplz estimates it, written down slowly: dictionaries of tuples, one probability at a time."""

from collections import Counter

Gram = tuple[int, ...]


class Reference:
    """``sentences``: [begin, …, end] each; every id in ``vocabulary`` can be predicted."""

    def __init__(
        self,
        sentences: list[list[int]],
        order: int,
        vocabulary: list[int],
        prune: tuple[int, ...] = (),
        fallback: tuple[float, float, float] = (0.5, 1.0, 1.5),
    ) -> None:
        self.order, self.size, begin = order, len(vocabulary), sentences[0][0]
        self.raw: Counter[Gram] = Counter()
        for ids in sentences:
            for end in range(1, len(ids)):
                for start in range(max(0, end - order + 1), end + 1):
                    self.raw[tuple(ids[start : end + 1])] += 1
        before: dict[Gram, set[int]] = {}
        for gram in self.raw:
            before.setdefault(gram[1:], set()).add(gram[0])
        self.adjusted = {
            gram: raw if len(gram) == order or gram[0] == begin else len(before[gram]) for gram, raw in self.raw.items()
        }
        limits = [*(prune or (0,)), *[(prune or (0,))[-1]] * order][:order]
        self.kept = {gram for gram, raw in self.raw.items() if len(gram) == 1 or raw > limits[len(gram) - 1]}
        self.discounts = [self._discounts(n, fallback) for n in range(1, order + 1)]

    def _discounts(self, n: int, fallback: tuple[float, float, float]) -> tuple[float, ...]:
        t = [sum(1 for gram, a in self.adjusted.items() if len(gram) == n and a == j) for j in range(5)]
        if 0 in t[1:4]:
            return fallback
        y = t[1] / (t[1] + 2 * t[2])
        d = tuple(j - (j + 1) * y * t[j + 1] / t[j] for j in (1, 2, 3))
        return d if all(0 <= d[j - 1] <= j for j in (1, 2, 3)) else fallback

    def p(self, word: int, history: Gram) -> float:
        """p(word | history) by the recursion of the definition."""
        history = history[len(history) - self.order + 1 :] if len(history) >= self.order else history
        after = {gram: a for gram, a in self.adjusted.items() if gram[:-1] == history}
        below = self.p(word, history[1:]) if history else 1 / self.size
        if not after:
            return below
        total = sum(after.values())
        d = self.discounts[len(history)]
        gamma = sum(d[min(a, 3) - 1] if gram in self.kept else a for gram, a in after.items()) / total
        gram = (*history, word)
        own = (self.adjusted[gram] - d[min(self.adjusted[gram], 3) - 1]) / total if gram in self.kept else 0.0
        return own + gamma * below
