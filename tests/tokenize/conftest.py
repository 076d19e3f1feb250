"""One small tokenizer for every test of this folder."""

import random

import pytest

from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe

WORDS = """the weaver sells wool at 12 soles la tejedora vende lana año niño ¿qué? it's don't <| |> turn user []
shepherd market mountain potatoes village cousin thunder morning yesterday pastora mercado montaña papas pueblo prima
trueno mañana ayer ¡cuánto! llama's they'll 2047 365 quinua chacra children's worked answered""".split()


def texts(seed: int, count: int) -> list[str]:
    """Made-up lines of English and Spanish words, the bits of special tokens' names among them."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(1, 12))) + chance.choice([".", "\n", "  "])
            for _ in range(count)]  # fmt: skip


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_bpe(texts(0, 400), 400, reserve=("[MASK]", "<extra_id_0>"))
