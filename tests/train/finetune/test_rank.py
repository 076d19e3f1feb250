"""Classes by the likeliest name, and prompts that are read in both directions, against plain loops over logits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from amauta import config
from amauta.base.errors import ConfigError
from amauta.data.buckets import Laid, batch_of
from amauta.models import exchange
from amauta.models.exchange.folder import write_model
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe
from amauta.train.finetune.run import finetune
from amauta.train.finetune.settings import Finetune
from amauta.train.finetune.steps import states

NAMES = ("bad", "rather good", "good")
TEXTS = [f"{one} {other}" for one in ("cat", "dog", "sun") for other in ("red", "blue", "one")]
ROWS = [{"text": text, "label": NAMES[n % 3]} for n, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tokenizer]:
    folder = tmp_path_factory.mktemp("rank")
    tokenizer = train_bpe([" ".join(row.values()) for row in ROWS], 290, allow_smaller=True)
    for kind in ("decoder", "encoder-decoder"):
        more: dict[str, Any] = {} if kind == "decoder" else {"kind": kind, "decoder_start": tokenizer.pad}
        spec = Spec(vocabulary=tokenizer.size, context=48, width=16, layers=1, heads=2, init_std=0.5, **more)
        (folder / kind).mkdir()
        write_model(Transformer.create(spec, 4), tokenizer, folder / kind)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder, tokenizer


def settings(folder: Path, kind: str, out: Path, **changes: Any) -> Finetune:
    rows = [str(folder / "rows.jsonl")]
    return config.build(Finetune, {
        "model": str(folder / kind), "task": rows, "heldout": rows, "out": str(out), "manner": "t5",
        "labels": NAMES, "measures": ["accuracy"], "loop": {"steps": 3, "rows": 4, "device": "cpu", "dtype": "f32"},
        "optim": {"lr": 1e-2},
    }, changes)  # fmt: skip


def naive(model: Transformer, tokenizer: Tokenizer, text: str, *, both_ways: bool) -> str:
    """The name of the greatest sum of log-probabilities, a forward pass each."""
    sums: dict[str, float] = {}
    for name in NAMES:
        answer = [*tokenizer.encode(name), tokenizer.end]
        if model.spec.kind == "decoder":
            prompt = tokenizer.prompt(text)
            ids = torch.tensor([[*prompt, *answer[:-1]]])
            hidden = model(ids, prefix=torch.tensor([len(prompt)]) if both_ways else None)[:, len(prompt) - 1 :]
        else:
            read = torch.tensor([tokenizer.around(text)[0]])
            hidden = model(read, decoder_ids=torch.tensor([[tokenizer.pad, *answer[:-1]]]))
        log_p = model.logits(hidden).float().log_softmax(-1)[0]
        sums[name] = sum(float(log_p[at, id]) for at, id in enumerate(answer))
    return max(sums, key=lambda name: sums[name])


@pytest.mark.parametrize(
    ("kind", "flag"), [("decoder", "rank"), ("decoder", "see_prompt"), ("encoder-decoder", "rank")]
)
def test_the_answer_is_the_likeliest_name(kind: str, flag: str, given: tuple[Path, Tokenizer], tmp_path: Path):
    folder, tokenizer = given
    found = finetune(settings(folder, kind, tmp_path, **{flag: True}))
    model = exchange.load(tmp_path / "model").eval()
    with torch.no_grad():
        said = [naive(model, tokenizer, row["text"], both_ways=flag == "see_prompt") for row in ROWS]
    assert found["accuracy"] == pytest.approx(sum(a == row["label"] for a, row in zip(said, ROWS, strict=True)) / 9)
    assert len(set(said)) > 1 or kind != "decoder"  # one answer to all would say little
    assert "outside" not in found or found["outside"] == 0


def test_only_the_prompt_is_seen_in_both_directions(given: tuple[Path, Tokenizer]):
    model = exchange.load(given[0] / "decoder").eval()
    laid = [Laid([[5, 6, 7]], [[0] * 3], written=[8, 9, 10]), Laid([[5]], [[0]], written=[8])]
    plain, both = batch_of(laid), batch_of(laid, see_prompt=True)
    assert plain.prefix is None and both.prefix is not None and both.prefix.tolist() == [3, 1]

    def seen(batch: Any, place: int, change: int) -> bool:
        """Whether the state at ``place`` of the first row changes with the token at ``change``."""
        before = states(model, batch)[0, place]
        batch.ids[0, change] = 20
        after = states(model, batch)[0, place]
        batch.ids[0, change] = plain_ids[change]
        return not torch.equal(before, after)

    plain_ids = plain.ids[0].tolist()
    with torch.no_grad():
        assert seen(both, 0, 2) and not seen(plain, 0, 2)
        assert not seen(both, 0, 3) and not seen(both, 2, 3) and seen(both, 3, 0)


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"rank": True, "manner": "gpt"}, "--rank"),
        ({"see_prompt": True, "manner": "gpt"}, "--see-prompt"),
        ({"see_prompt": True, "model": "encoder-decoder"}, "--see-prompt"),
    ],
)
def test_flags_that_mean_nothing(changes: dict[str, Any], flag: str, given: tuple[Path, Tokenizer], tmp_path: Path):
    kind = changes.pop("model", "decoder") if "model" in changes else "decoder"
    with pytest.raises(ConfigError) as caught:
        finetune(settings(given[0], kind, tmp_path, **changes))
    assert flag in caught.value.fields["flags"]
