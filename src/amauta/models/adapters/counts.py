"""How many numbers an adapter would train, from the spec alone."""

import torch

from amauta.adapt.settings import Adapters
from amauta.models.adapters.attach import attach
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer


def counts(spec: Spec, settings: Adapters) -> int:
    """Numbers that adapters with these ``settings`` train in a model of ``spec``, new tokens and new outputs aside.

    The model is made without memory for its weights, so a GPT-3 takes no longer than a GPT-2. Errors as ``attach``.
    """
    with torch.device("meta"):
        model = Transformer(spec)
    return int(attach(model, settings, seed=0)["trained"])
