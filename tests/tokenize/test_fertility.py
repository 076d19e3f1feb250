from amauta.tokenize.fertility import fertility
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe


def test_counts_worked_by_hand():
    bare = train_bpe(["a"], 264)  # no merges: a token is a byte
    got = fertility(bare, [("es", "año sí"), ("en", "ab  cd ef\n"), ("es", "ñ"), ("zh", ""), ("x", " ")])
    assert got == {
        "es": {"texts": 2, "words": 3, "bytes": 10, "tokens": 10, "tokens_per_word": 3.3333, "words_per_token": 0.3,
               "bytes_per_token": 1.0},
        "en": {"texts": 1, "words": 3, "bytes": 10, "tokens": 10, "tokens_per_word": 3.3333, "words_per_token": 0.3,
               "bytes_per_token": 1.0},
        "zh": {"texts": 1, "words": 0, "bytes": 0, "tokens": 0, "tokens_per_word": None, "words_per_token": None,
               "bytes_per_token": None},
        "x": {"texts": 1, "words": 0, "bytes": 1, "tokens": 1, "tokens_per_word": None, "words_per_token": 0.0,
              "bytes_per_token": 1.0},
    }  # fmt: skip


def test_a_language_that_was_trained_on_costs_less(tokenizer: Tokenizer):
    got = fertility(tokenizer, [("es", "la tejedora vende lana"), ("qu", "awaqka millmata rantikun")])
    assert 1 <= got["es"]["tokens_per_word"] < got["qu"]["tokens_per_word"] / 1.5
    assert got["es"]["bytes_per_token"] > 1.5 * got["qu"]["bytes_per_token"]


def test_more_texts_than_one_batch_are_all_counted(tokenizer: Tokenizer):
    assert fertility(tokenizer, (("en", "wool") for _ in range(1300)))["en"]["texts"] == 1300
