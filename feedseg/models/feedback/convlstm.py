"""Convolutional LSTM cell with the equations of Keras 2, optionally with peepholes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import glorot_uniform, orthogonal, zeros

from feedseg.models.layers.convolve import add_bias, conv2d
from feedseg.models.layers.shapes import check

Array = jax.Array
State = tuple[Array, Array]


def hard_sigmoid(x: Array) -> Array:
    """`clip(0.2 x + 0.5, 0, 1)`, that of Keras 2 (jax.nn.hard_sigmoid is another one).

    Made of `where`: the gradient of a clip would divide by the number of equal values.
    """
    y = 0.2 * x + 0.5
    return jnp.where(y < 0, 0, jnp.where(y > 1, 1, y)).astype(x.dtype)


ACTIVATIONS = {"hard_sigmoid": hard_sigmoid, "sigmoid": nn.sigmoid}


class ConvLSTM(nn.Module):
    """One step of a convolutional LSTM; `*` is a "same" convolution, `.` a product per element.

        i = s(Wi * x + Ui * h + bi)       f = s(Wf * x + Uf * h + bf)
        c' = f . c + i . tanh(Wc * x + Uc * h + bc)
        o = s(Wo * x + Uo * h + bo)       h' = o . tanh(c')

    features: F of the state (c, h), each [N, H, W, F]. recurrent_activation: s, `hard_sigmoid`
    (Keras 2) or `sigmoid`. unit_forget_bias: bf starts at 1. peephole: adds Wci . c in i,
    Wcf . c in f and Wco . c' in o (Shi et al., 2015); these weights have the size of the image.
    Parameters: 4 F (k^2 (C + F) + 1), gates in the order i, f, c, o.
    Source: Keras 2.2.4 and 2.3.1 ConvLSTM2D; Shi et al. (2015), Eq. 3.
    """

    features: int
    kernel_size: int
    recurrent_activation: str
    unit_forget_bias: bool
    peephole: bool

    @nn.compact
    def __call__(self, x: Array, state: State | None = None) -> tuple[Array, State]:
        """x [N, H, W, C] and the state before it -> output h' and the state after it.

        Without a state (zeros) nothing recurrent and no forget gate is computed.
        """
        if self.recurrent_activation not in ACTIVATIONS:
            raise ValueError(
                f"recurrent_activation={self.recurrent_activation!r}: choose "
                f"{' or '.join(ACTIVATIONS)}"
            )
        gate = ACTIVATIONS[self.recurrent_activation]
        size, f = self.kernel_size, self.features
        states = zip("ch", state or (), strict=False)
        check("ConvLSTM", x=(x, "N H W C"), **{name: (s, f"N H W {f}") for name, s in states})
        kernel = self.param("kernel", glorot_uniform(), (size, size, x.shape[-1], 4 * f))
        recurrent = self.param("recurrent_kernel", orthogonal(), (size, size, f, 4 * f))
        bias = self.param("bias", self._bias_init, (4 * f,)).astype(x.dtype)
        at_i, at_f, at_o = self._peepholes(x)
        if state is None:
            kernel, bias = (jnp.delete(w, slice(f, 2 * f), -1) for w in (kernel, bias))
            i, g, o = jnp.split(add_bias(_same(x, kernel), bias), 3, -1)
            c = gate(i) * jnp.tanh(g)
        else:
            c, h = state
            both = jnp.concatenate([kernel, recurrent], 2)
            z = add_bias(_same(jnp.concatenate([x, h], -1), both), bias)
            i, forget, g, o = jnp.split(z, 4, -1)
            c = gate(forget + at_f * c) * c + gate(i + at_i * c) * jnp.tanh(g)
        h = gate(o + at_o * c) * jnp.tanh(c)
        return h, (c, h)

    def _bias_init(self, key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
        bias = zeros(key, shape, dtype)
        f = self.features
        return bias.at[f : 2 * f].set(1) if self.unit_forget_bias else bias

    def _peepholes(self, x: Array) -> tuple[Array | float, ...]:
        """Weights of the cell state in i, f and o, each [H, W, F]; zeros without peepholes."""
        if not self.peephole:
            return 0.0, 0.0, 0.0
        shape = (*x.shape[1:3], self.features)
        names = ("peephole_i", "peephole_f", "peephole_o")
        return tuple(self.param(name, zeros, shape).astype(x.dtype) for name in names)


def _same(x: Array, kernel: Array) -> Array:
    side = (kernel.shape[0] - 1) // 2
    return conv2d(x, kernel.astype(x.dtype), 1, ((side, side), (side, side)))
