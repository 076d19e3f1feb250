"""Bottleneck adapters: a narrow layer with a residual after a part of the model (Houlsby et al. 2019, arXiv 1902.00751;
Pfeiffer et al. 2021, arXiv 2005.00247)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amauta.adapt.around import Around


class Bottleneck(Around):
    """``y + U f(V y + v) + u`` on what the layer gives, before the model's own residual and norm: V (m, D), U (D, m).

    Houlsby et al. put one after both halves of every block, with GELU here (the paper leaves f open); Pfeiffer et al.
    one after the feed-forward layer, with ReLU. V is drawn from N(0, 0.01²) cut off at two standard deviations, and U
    is 0, where the paper draws it too: so at first nothing changes. Pfeiffer's adapter reads the part's output here,
    not its sum with the residual.
    """

    def __init__(
        self,
        linear: nn.Module,
        *,
        width: int,
        kind: str = "houlsby",
        name: str = "default",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(linear, name)
        self.kind = kind
        D, device = self.out_features, self.weight.device
        drawn = torch.empty(width, D, device="meta" if device.type == "meta" else "cpu")
        if device.type != "meta":  # where only numbers are counted, drawing them would take most of the time
            nn.init.trunc_normal_(drawn, std=1e-2, a=-2e-2, b=2e-2, generator=generator)
        self.down = nn.Parameter(drawn.to(device))
        self.down_bias = nn.Parameter(torch.zeros(width, device=device))
        self.up = nn.Parameter(torch.zeros(D, width, device=device))
        self.up_bias = nn.Parameter(torch.zeros(D, device=device))

    def changed(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        low = F.linear(y, self.down.type_as(y), self.down_bias.type_as(y))  # (..., m)
        low = F.gelu(low) if self.kind == "houlsby" else low.relu()
        return self.where_on(y + F.linear(low, self.up.type_as(y), self.up_bias.type_as(y)), y)
