"""How large and how costly: parameters and FLOPs of a spec, by arithmetic (methods: 6N plus attention)."""

from amauta.models.spec import Spec


def parameters(spec: Spec) -> int:
    """Parameters, tied tables counted once. Equal to the sum over the built model's tensors."""
    D, H, G, K, F = spec.width, spec.heads, spec.groups, spec.head, spec.inner
    bias = int(spec.bias)
    norm = D * (2 if spec.norm == "layer" else 1)
    attention = D * (H + 2 * G) * K + H * K * D + bias * ((H + 2 * G) * K + D) + (2 * K if spec.qk_norm else 0)
    up = F * (2 if spec.gated else 1)
    feedforward = D * up + F * D + bias * (up + D)
    tables = spec.vocabulary * D * (1 if spec.tied else 2) + (spec.context * D if spec.positions == "learned" else 0)
    return tables + spec.layers * (attention + feedforward + 2 * norm) + norm


def matmul_parameters(spec: Spec) -> int:
    """Parameters that take part in matrix products: lookups left out, the output table counted."""
    D, H, G, K, F = spec.width, spec.heads, spec.groups, spec.head, spec.inner
    layer = D * (H + 2 * G) * K + H * K * D + D * F * (3 if spec.gated else 2)
    return spec.layers * layer + spec.vocabulary * D


def training_flops(spec: Spec, length: int) -> int:
    """FLOPs of one training token at sequence length T: ``6N + 12·L·H·K·T`` (Chowdhery et al. 2022, 2204.02311,
    appendix B). The whole square of attention is counted, as they do, though a causal mask needs half."""
    return 6 * matmul_parameters(spec) + 12 * spec.layers * spec.heads * spec.head * length
