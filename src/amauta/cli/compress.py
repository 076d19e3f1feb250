"""Make a model smaller, and measure what that cost."""

from typing import Any

from amauta.cli._door import Group
from amauta.compress.prune.settings import Prune
from amauta.compress.settings import Quantize
from amauta.train.distill.settings import Distill

app = Group("compress")


@app.command("quantize", Quantize)
def quantize(settings: Quantize) -> dict[str, Any]:
    """Hold a model's weights in 8 or 4 bits.

    int8, int4 and nf4 take the nearest numbers. gptq and awq watch the model on a text and choose 4 bits by what its
    layers read; smoothquant computes with 8-bit inputs too. Without --text a decoder is watched on what it writes
    itself. The folder that is written is read back and answers the model's probes: kl is the mean difference of what it
    expects next from what the model before expected (nats a token). Beyond the tolerance nothing is left there, and the
    exit code is 2, or with --accept the model's card says so.

    Examples:
        amauta compress quantize --model smollm2 --scheme int8 --out smollm2-int8
        amauta compress quantize --model smollm2 --scheme gptq --text prose.txt --out smollm2-gptq --json
        amauta compress quantize --model runs/demo --scheme nf4 --double --out demo-nf4
        amauta compress quantize --model smollm2 --scheme int8 --outliers 6 --out smollm2-outliers
    """
    from amauta.base.errors import ConfigError

    if settings.out.exists() and not settings.force:
        raise ConfigError("export.exists", path=settings.out)
    from amauta.compress.run import quantize as work
    from amauta.config import to_dict
    from amauta.device import pick
    from amauta.hub import find_model
    from amauta.models.contract.changed import write_changed
    from amauta.models.exchange.opening import open_model

    found, device = find_model(settings.model), pick(settings.device)
    model, tokenizer = open_model(found, device=device.device)
    made, facts = work(model, tokenizer, settings.rounding, settings.calibration, autocast=device.autocast)
    figures = write_changed(
        found, model, made, tokenizer, settings.out,
        step=f"quantize {settings.rounding.scheme}", settings=to_dict(settings.rounding), facts=facts,
        tolerance=settings.tolerance, accept=settings.accept,
    )  # fmt: skip
    return {"model": found.name, "source": found.source, **figures}


@app.command("prune", Prune)
def prune(settings: Prune) -> dict[str, Any]:
    """Take out what a model needs least: weights, which become zero, or heads, neurons and layers, which are gone.

    magnitude goes by the size of a weight, wanda by its size times that of its input, row by row; sparsegpt lets the
    weights that stay make up for those that go. These leave the shapes as they are; training goes on with the zeros in
    their places. heads, neurons and layers make a smaller model: all its layers keep as many. Without --text a decoder
    is watched on what it writes itself. The folder that is written is read back and answers the model's probes, as
    after quantising.

    Examples:
        amauta compress prune --model smollm2 --scheme wanda --ratio 0.3 --text prose.txt --out smollm2-thin
        amauta compress prune --model runs/demo --scheme sparsegpt --pattern 2:4 --out demo-2-4 --accept
        amauta compress prune --model smollm2 --scheme neurons --ratio 0.25 --out smollm2-narrow --accept --json
        amauta compress prune --model runs/bert --scheme layers --ratio 0.5 --text prose.txt --out bert-flat --accept
    """
    from amauta.base.errors import ConfigError

    if settings.out.exists() and not settings.force:
        raise ConfigError("export.exists", path=settings.out)
    from amauta.compress.prune.run import prune as work
    from amauta.config import to_dict
    from amauta.device import pick
    from amauta.hub import find_model
    from amauta.models.contract.changed import write_changed
    from amauta.models.exchange.opening import open_model

    found, device = find_model(settings.model), pick(settings.device)
    model, tokenizer = open_model(found, device=device.device)
    made, facts = work(model, tokenizer, settings, autocast=device.autocast)
    elsewhere = ("model", "out", "calibration", "tolerance", "accept", "force", "device")
    told = {name: value for name, value in to_dict(settings).items() if name not in elsewhere}
    figures = write_changed(
        found, model, made, tokenizer, settings.out, step=f"prune {settings.scheme}", settings=told, facts=facts,
        tolerance=settings.tolerance, accept=settings.accept,
    )  # fmt: skip
    return {"model": found.name, "source": found.source, **figures}


@app.command("distill", Distill)
def distill(settings: Distill) -> dict[str, Any]:
    """Train a small model, the student, to say what a large one says, its teacher; it is left in OUT/model.

    The student is a named size, built as the teacher is, or a model that is there, or the teacher with some of its
    layers. It learns what the teacher says of every token of given texts (logits), texts that the teacher writes
    (sequences; the two may then have different tokenizers), or what the teacher says of texts that the student writes
    (on-policy). Encoders learn in the manner of DistilBERT or of MiniLM. Ctrl-C saves and stops; the same command with
    --resume goes on.

    Examples:
        amauta compress distill --model runs/base --student nano --text corpus.jsonl --out runs/small
        amauta compress distill --model smollm2 --layers 15 --text corpus.jsonl --length 256 --best 32 --out runs/half
        amauta compress distill --model runs/chat --student nano --data chats.jsonl --how on-policy --out runs/small
        amauta compress distill --model runs/bert --how distilbert --text corpus.jsonl --out runs/distilbert
        amauta compress distill --model minilm --how minilm --layers 3 --text corpus.jsonl --out runs/mini
    """
    from amauta.train.distill.run import distill as work

    return work(settings)
