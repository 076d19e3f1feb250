"""A tokenizer of given pieces, and the sampler's loop in small, for tests of constraints."""

import torch

from amauta.decode.constrain.constraint import Constrainer, constrained
from amauta.decode.constrain.settings import Constraining


class Toy:
    """A tokenizer of given pieces; those in angle brackets are special."""

    def __init__(self, *pieces: str | bytes) -> None:
        self.names = {id: one for id, one in enumerate(pieces) if isinstance(one, str) and one.startswith("<|")}
        self.pieces = [one if isinstance(one, bytes) else b"" if id in self.names else one.encode()
                       for id, one in enumerate(pieces)]  # fmt: skip
        self.size = len(pieces)

    def token_bytes(self, id: int) -> bytes:
        return self.pieces[id]


def start(tokenizer, stops=(), *, more=0, **form):
    [made] = Constrainer(tokenizer, tokenizer.size + more, stops).start([Constraining(**form)])
    return made


def allowed(constraint):
    return set(constraint.mask().nonzero().flatten().tolist())


def spelt(tokenizer, ids):
    return b"".join(tokenizer.token_bytes(id) for id in ids).decode()


def write(model, prompts, constraints, stops, *, most, seed, bias=0.0, watch=None):
    """The sampler's loop in its plainest form: masks, then a draw. The ids of each row, its end included.

    ``prompts`` are of one length; ``bias`` is added to the logits; ``watch(row, ids)`` is called after every token.
    """
    generator = torch.Generator().manual_seed(seed)
    read, ids, rows = torch.tensor(prompts), [[] for _ in prompts], list(range(len(prompts)))
    with torch.inference_mode():
        for _ in range(most):
            logits = model.logits(model(read)[:, -1])[rows] + bias  # (rows, V)
            masked, faults = constrained(logits, [constraints[row] for row in rows])
            assert not faults
            drawn = torch.multinomial(masked.double().softmax(-1), 1, generator=generator)[:, 0]
            for row, id in zip(rows, drawn.tolist(), strict=True):
                ids[row].append(id)
                constraints[row].take(id)
                if watch is not None:
                    watch(row, ids[row])
            column = torch.zeros(len(prompts), 1, dtype=torch.long).index_copy(0, torch.tensor(rows), drawn[:, None])
            read = torch.cat([read, column], dim=1)
            rows = [row for row in rows if ids[row][-1] not in stops]
            if not rows:
                break
    return ids
