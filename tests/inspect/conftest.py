"""A pair with every figure known, made without models."""

import pytest

from amauta.inspect.pair import Pair, Side

NASTY = '</script><script>alert("x")</script>&amp;\'<u>'


def side(texts: list[str], sign: float) -> Side:
    n = len(texts)
    ratio = [sign * (i + 1) / 4 for i in range(n)]
    figures = {
        "logprob": [-1.0 - i for i in range(n)], "reference": [-1.0 - i - r for i, r in enumerate(ratio)],
        "ratio": ratio, "reward": [r / 10 for r in ratio], "kl": [0.125 * i for i in range(n)],
        "score": [-r for r in ratio], "selected": [float(i == 1) for i in range(n)],
        "mask_reward": [0.0] + [0.5] * (n - 1), "mask_divergence": [1.0] * n, "mapo": [i / n for i in range(n)],
    }  # fmt: skip
    prompt = ["<|begin|>", "¿Uno\n", " o <dos>?"]
    layers = [[[(0, 0.6), (i + 2, 0.4)] for i in range(n)], [[(1, 1.0)] for _ in range(n)]]
    return Side([*prompt, *texts, "\n"], list(range(3, 3 + n)), figures, [*layers, [[(1, 0.5), (0, 0.3)]] * n])


@pytest.fixture
def pair() -> Pair:
    names = {"model": "runs/a<b", "reference": "base", "oracle": "o", "masks": "m.safetensors"}
    return Pair(side(["Sí", NASTY, ".", "<|turn|>"], 1), side([" no", "<|turn|>"], -1), 0.1, "pairs.jsonl:3", names)
