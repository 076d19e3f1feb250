"""What the decoding benchmarks share: SmolLM2-135M, a model of the demo's size, and both in other libraries."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from amauta.language_model import LanguageModel, load
from amauta.models import exchange
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
DEMO = Spec(vocabulary=1536, context=256, width=192, layers=6, heads=6, kv_heads=2)  # as recipes/demo.toml has it
LLAMA_CPP = "AMAUTA_LLAMA_CPP"  # a Python that has llama-cpp-python


def ours(name: str, dtype: str) -> LanguageModel:
    """``smollm2``, or a model of the demo's size with random weights (it takes ids only)."""
    if name == "demo":
        return LanguageModel(Transformer.create(DEMO, 0).to(DTYPES[dtype]).eval(), None)
    return load(name, dtype=dtype)  # type: ignore[arg-type]


def theirs(model: LanguageModel, dtype: str) -> Any:
    """The same weights in transformers."""
    import transformers

    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        exchange.save(model.model, Path(folder))
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype]).eval()


def bytes_read(model: LanguageModel, held: int) -> int:
    """What one step of one row must read from memory: the weights, and the cache of ``held`` tokens."""
    spec, table = model.model.spec, model.model.embedding.weight
    weights = sum(weight.numel() for name, weight in model.model.named_parameters() if name != "embedding.weight")
    output = model.model.output_table.numel() if model.model.output_table is table else 0
    return (weights + output + held * 2 * spec.layers * spec.groups * spec.head) * table.element_size()


def alternating(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each work in each round; they take turns, so that all see the same machine."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    return seconds


LLAMA = """
import json, sys
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=2048, n_batch=2048, n_threads=int(sys.argv[2]), n_threads_batch=int(sys.argv[2]),
              verbose=False)
print("ready", flush=True)
for line in sys.stdin:
    ids, count = json.loads(line)
    model.reset()
    model.eval(ids)
    for _ in range(count - 1):
        model.eval([int(model.scores[model.n_tokens - 1].argmax())] if model._logits_all else [model.sample(temp=0.0)])
    print("done", flush=True)
"""


@contextmanager
def llama_cpp(model: LanguageModel, kind: str) -> Iterator[Callable[[list[int], int], None] | None]:
    """``read and write so many tokens`` by llama.cpp on a GGUF file of the same weights; None where it is not there."""
    python = os.environ.get(LLAMA_CPP)
    if not python:
        yield None
        return
    from amauta.models.exchange.gguf.write import write

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.gguf"
        write(model.model, model.tokenizer, file, type=kind)
        words = [python, "-c", LLAMA, str(file), str(torch.get_num_threads())]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdout.readline()

            def work(ids: list[int], count: int) -> None:
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write(json.dumps([ids, count]) + "\n")
                process.stdin.flush()
                if process.stdout.readline() != "done\n":
                    raise RuntimeError("llama.cpp gave up")

            yield work
            process.stdin.close()
