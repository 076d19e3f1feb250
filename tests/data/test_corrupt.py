"""From stored text to batches: every token met, noise a function of seed, epoch and unit, nothing special hidden."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from amauta.base.errors import DataError
from amauta.data import spans
from amauta.data.batches import PackedBatches
from amauta.data.corrupt import Masked, Pieces, Runs, Sequences, capacity
from amauta.data.objective import Objective
from amauta.data.pairs import Pairs
from amauta.losses.token import IGNORE
from amauta.tokenize.roles import Roles
from amauta.tokenize.special import FOR
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe
from amauta.train.material import text_store

WORDS = ("the", "old", "cat", "sees", "a", "small", "house", "and", "goes", "home")


def sentences(seed: int, count: int) -> str:
    rng = np.random.default_rng(seed)
    return " ".join(" ".join(rng.choice(WORDS, int(rng.integers(2, 9)))).capitalize() + "." for _ in range(count))


TEXTS = [sentences(seed, 1 + seed % 7) for seed in range(60)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(TEXTS, 420, allow_smaller=True, reserve=[*FOR["bert"], *FOR["t5"]])


@pytest.fixture(scope="module")
def roles(tokenizer: Tokenizer) -> Roles:
    return Roles(tokenizer)


def stored(tokenizer: Tokenizer, texts: list[str] = TEXTS):  # type: ignore[no-untyped-def]
    encoded = tokenizer.encode_many(texts)
    return text_store(encoded, [len(text.encode()) for text in texts], tokenizer)


def batches(units, collate, length: int, epochs: int = 1, rows: int = 4):  # type: ignore[no-untyped-def]
    return list(PackedBatches(units, rows=rows, length=length, epochs=epochs, seed=5, collate=collate))


def restored(batch) -> torch.Tensor:  # type: ignore[no-untyped-def]
    return torch.where(batch.targets == IGNORE, batch.ids, batch.targets)


def test_pieces_hold_every_token_between_their_edges(tokenizer: Tokenizer, roles: Roles):
    store = stored(tokenizer)
    units = Pieces(store, 14, 2)
    cls, sep = roles.pair
    met = []
    for batch in batches(units, Masked(roles, Objective(objective="masked"), 3), 16):
        whole = restored(batch)
        for r, row in enumerate(batch.units):
            for number, unit in enumerate(row, start=1):
                mine = whole[r][batch.documents[r] == number].tolist()
                assert mine[0] == cls and mine[-1] == sep and mine[1:-1] == units[unit].tolist()
                places = batch.positions[r][batch.documents[r] == number]
                assert places.tolist() == list(range(len(mine)))
                met.append(unit)
        hidden = batch.targets[batch.targets != IGNORE]
        assert not set(hidden.tolist()) & tokenizer.special
        assert (batch.targets[batch.documents == 0] == IGNORE).all()
    assert sorted(met) == list(range(len(units.lengths)))
    assert sum(len(units[unit]) for unit in met) == len(store.tokens)


@pytest.mark.parametrize("of", ["token", "word", "ngram", "salient"])
def test_noise_is_a_function_of_seed_epoch_and_unit(tokenizer: Tokenizer, roles: Roles, of: str):
    settings = Objective(objective="masked", mask_of=of)  # type: ignore[arg-type]
    units, free = Pieces(stored(tokenizer), 30, 2), [0, 1, 2, 3]
    collate = Masked(roles, settings, 3)
    one = collate(units, [[0, 1], [2, 3]], 64, [1, 1])
    again = Masked(roles, settings, 3)(units, [[0, 1], [2, 3]], 64, [1, 1])
    assert torch.equal(one.ids, again.ids) and torch.equal(one.targets, again.targets)
    alone = [collate(units, [[unit]], 32, [1]) for unit in free]
    for r, at, unit in ((0, 1, 0), (0, 2, 1), (1, 1, 2), (1, 2, 3)):  # wherever and beside whatever it stands
        mine = one.documents[r] == at
        assert torch.equal(one.ids[r][mine], alone[unit].ids[0][: int(mine.sum())])
    rows = [[unit] for unit in range(20)]
    masks = [
        (Masked(roles, changed, seed)(units, rows, 32, [epoch] * 20).targets != IGNORE)
        for changed, seed, epoch in (
            (settings, 3, 1), (settings, 3, 2), (settings, 4, 1),
            (replace(settings, mask_static=True), 3, 1), (replace(settings, mask_static=True), 3, 2),
        )
    ]  # fmt: skip
    assert not torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
    assert torch.equal(masks[3], masks[4])


def test_whole_words_are_hidden_whole(tokenizer: Tokenizer, roles: Roles):
    units = Pieces(stored(tokenizer), 62, 2)
    for unit in range(len(units.lengths)):
        batch = Masked(roles, Objective(objective="masked", mask_of="word", mask_rate=0.3), 1)(units, [[unit]], 64, [0])
        ids = restored(batch)[0].numpy()[: int(units.lengths[unit])]
        word = np.cumsum(roles.word_starts(ids) | ~roles.is_ordinary[ids])
        hidden = (batch.targets[0] != IGNORE).numpy()[: len(ids)]
        for one in np.unique(word[hidden]):
            assert hidden[(word == one) & roles.is_ordinary[ids]].all()


def within(part: list[int], whole: list[int]) -> bool:
    return any(whole[i : i + len(part)] == part for i in range(len(whole)))


@pytest.mark.parametrize("kind", ["next", "order"])
def test_pairs_are_half_true_and_laid_out(tokenizer: Tokenizer, roles: Roles, kind: str):
    store = stored(tokenizer)
    units = Pairs(store, 40, roles, kind)  # type: ignore[arg-type]
    assert units.too_short == 0 and units.lengths.max() <= 40
    covered = sorted(zip(units.begin.tolist(), units.end.tolist(), strict=True))
    assert covered[0][0] == 0 and covered[-1][1] == len(store.tokens)
    assert all(end == begin for (_, end), (begin, _) in zip(covered, covered[1:], strict=False))
    cls, sep = roles.pair
    collate = Masked(roles, Objective(objective="masked", pair=kind), 3)  # type: ignore[arg-type]
    labels = []
    for batch in batches(units, collate, 64, epochs=30):
        whole = restored(batch)
        assert (whole.reshape(-1)[batch.firsts] == cls).all() and len(batch.firsts) == sum(map(len, batch.units))
        labels += batch.pairs.tolist()
        n = 0
        for r, row in enumerate(batch.units):
            for number, unit in enumerate(row, start=1):
                mine = batch.documents[r] == number
                ids, segments = whole[r][mine].tolist(), batch.segments[r][mine].tolist()
                middle = ids.index(sep)
                assert ids.count(sep) == 2 and ids[-1] == sep
                assert segments == [0] * (middle + 1) + [1] * (len(ids) - middle - 1)
                first, second = ids[1:middle], ids[middle + 1 : -1]
                text = store.tokens[units.begin[unit] : units.end[unit]].tolist()
                if batch.pairs[n] == 0:
                    assert first + second == text
                elif kind == "order":
                    assert second + first == text
                else:
                    assert first == text[: len(first)] and len(second) <= len(text) - len(first)
                    others = (i for i in range(len(store)) if i != units.document[unit])
                    assert any(within(second, store[i].tolist()) for i in others)
                n += 1
    assert abs(np.mean(labels) - 0.5) < 4 * 0.5 / np.sqrt(len(labels))


def test_a_text_is_parted_where_a_sentence_ends(tokenizer: Tokenizer, roles: Roles):
    units = Pairs(stored(tokenizer), 64, roles, "order")
    several = [u for u in range(len(units.lengths)) if tokenizer.decode(store_run(units, u)).count(".") > 1]
    for unit in several:
        first, _, label = units.pair(unit, np.random.default_rng(unit))
        assert tokenizer.decode(first).endswith(".") or label == 1


def store_run(units: Pairs, unit: int) -> np.ndarray:
    return units.store.tokens[units.begin[unit] : units.end[unit]]


def test_pairs_that_cannot_be_made(tokenizer: Tokenizer, roles: Roles):
    with pytest.raises(DataError, match="two such documents"):
        Pairs(stored(tokenizer, TEXTS[:1]), 40, roles, "next")
    with pytest.raises(DataError, match="at least 6"):
        Pairs(stored(tokenizer), 5, roles, "order")


@pytest.mark.parametrize("length", [16, 64, 128])
def test_a_packed_stream_of_spans_has_no_padding(tokenizer: Tokenizer, roles: Roles, length: int):
    settings, store = Objective(objective="spans"), stored(tokenizer)
    size, source, target = capacity(settings, length, 0, apart=True)
    assert (size, source, target) == (spans.longest(length), *spans.amount(spans.longest(length))[2:])
    units = Runs(store, size, length)
    met = np.zeros(len(store.tokens), dtype=int)
    for batch in batches(units, Sequences(roles, settings, 3, (source, target), 0), length, rows=1):
        assert batch.real is None and (batch.targets != IGNORE).all() and batch.ids.shape == (1, source)
        assert batch.decoder_ids[0].tolist() == [0, *batch.targets[0, :-1].tolist()]
        (unit,) = batch.units[0]
        text = spans.restore(batch.ids[0].numpy(), batch.targets[0].numpy(), roles.sentinels, roles.end)
        assert text.tolist() == units[unit].tolist()
        met[units.begin[unit] : units.begin[unit] + size] += 1
    assert met.min() == 1 and (met > 1).sum() < size


@pytest.mark.parametrize(
    ("objective", "of"), [("spans", "token"), ("spans", "salient"), ("denoise", "token"), ("prefix", "token")]
)
@pytest.mark.parametrize("apart", [True, False])
def test_source_and_target_hold_the_text(tokenizer: Tokenizer, roles: Roles, objective: str, of: str, apart: bool):
    settings = Objective(objective=objective, mask_of=of, shuffle_sentences=True)  # type: ignore[arg-type]
    edges = 2 if objective == "denoise" else 0
    size, source, target = capacity(settings, 50, edges, apart=apart)
    units = Runs(stored(tokenizer), size, 50)
    collate = Sequences(roles, settings, 3, (source, target), 0 if apart else None)
    for unit in range(len(units.begin)):
        batch, text = collate(units, [[unit]], 50, [0]), units[unit].tolist()
        wanted = batch.targets[0][batch.targets[0] != IGNORE].tolist()
        if apart:
            given = batch.ids[0][batch.documents[0] > 0].tolist()
            assert batch.real is None or batch.real[0].tolist() == (batch.documents[0] > 0).tolist()
        else:
            assert batch.ids.shape == (1, 50)
            given = batch.ids[0][: int(batch.prefix[0])].tolist()
            used = int((batch.documents[0] > 0).sum())
            assert batch.ids[0, len(given) : used].tolist() == wanted[:-1]  # each target is read after it is written
        begin, end = roles.edges
        if objective == "prefix":
            assert (given[:-1] if apart else given) + wanted == text
            assert not apart or given[-1] == roles.end
        elif objective == "denoise":
            assert wanted == begin + text + end and [given[0], given[-1]] == begin + end
            assert set(given) <= {*wanted, roles.mask}
        else:
            assert spans.restore(np.array(given), np.array(wanted), roles.sentinels, roles.end).tolist() == text


def test_salient_spans_are_the_names(roles: Roles, tokenizer: Tokenizer):
    text = "she met Ana Quispe in the house on 12 March 1990 and goes home with 35 cats"
    settings = Objective(objective="spans", mask_of="salient", mask_rate=0.5)
    ids = np.array(tokenizer.encode(text))
    hidden = set()
    for seed in range(20):
        _, target = Sequences(roles, settings, 0, (99, 99), 0).corrupt(ids, np.random.default_rng(seed))
        marks = np.flatnonzero(np.isin(target, roles.sentinels))
        parts = np.split(target[:-1], marks)[1:]
        hidden |= {tokenizer.decode(part).strip() for part in parts}
    assert hidden == {"Ana Quispe", "12 March 1990", "35"}


def test_a_target_has_room_for_its_salient_spans(roles: Roles, tokenizer: Tokenizer):
    ids = np.array(tokenizer.encode("or 1 or 2 or 3 or 4 or 5 or 6 or 7 or 8 or 9 or 1 or 2 or 3"))
    settings = Objective(objective="spans", mask_of="salient", mask_rate=0.2)
    for seed in range(50):
        source, target = Sequences(roles, settings, 0, (99, 99), 0).corrupt(ids, np.random.default_rng(seed))
        assert len(target) <= spans.amount(len(ids), 0.2).target and len(source) <= len(ids) + 1


def test_too_little_room_or_text(tokenizer: Tokenizer):
    with pytest.raises(DataError, match="Raise --length"):
        capacity(Objective(objective="spans"), 3, 0, apart=False)
    with pytest.raises(DataError, match="1 tokens in all"):
        Runs(stored(tokenizer, ["a"]), 10, 10)
