"""Automatic weighted ensemble learning (AWEL)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros

from feedseg.models.layers.conv import bias_init
from feedseg.models.layers.shapes import check


class Awel(nn.Module):
    """Weighted sum of S segmentation maps: `z = sum_s w_s m_s + b`.

    maps [S, N, H, W, K] -> [N, H, W, K]. A point-wise 3-D convolution over the S maps, as in
    AEP (2024), Fig. 4. mode: `learned` weights, or `fixed` at 1 without bias (Table 5).
    The paper leaves open what is summed and how the weights start. use: the `logits`, as in the
    released code, or their softmax, `probabilities`. initializer: `torch`, U(-1/sqrt S, 1/sqrt S),
    as in the released code, or `mean`, 1/S. The bias moves all classes alike and has no effect.
    """

    mode: str
    use: str
    initializer: str

    @nn.compact
    def __call__(self, maps: jax.Array) -> jax.Array:
        check("Awel", maps=(maps, "... K"))
        count = maps.shape[0]
        if self.use == "probabilities":
            maps = nn.softmax(maps)
        elif self.use != "logits":
            raise ValueError(f"awel_input={self.use!r}: choose logits or probabilities")
        if self.mode == "fixed":
            return maps.sum(0)
        if self.initializer == "torch":
            initial = bias_init("torch", count)
        elif self.initializer == "mean":
            initial = nn.initializers.constant(1 / count)
        else:
            raise ValueError(f"awel_init={self.initializer!r}: choose torch or mean")
        weights = self.param("weights", initial, (count,)).astype(maps.dtype)
        bias = self.param("bias", initial if self.initializer == "torch" else zeros, (1,)).astype(
            maps.dtype
        )
        return jnp.einsum("s,s...->...", weights, maps) + jax.lax.stop_gradient(bias)
