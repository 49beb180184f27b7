"""Runs a traced function operation by operation, in fewer kinds of operations.

For converters that know neither all of JAX's operations nor functions within functions: calls are
opened, loops that were to be written out are written out, `stack` and `pad` become concatenations,
and what depends on no input is computed at once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal

_CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "checkpoint")
_LARGE_WHEN_COMPUTED = ("broadcast_in_dim", "iota")  # small as operations


def simplified(function: Callable, image: jax.ShapeDtypeStruct) -> Callable:
    """The function of one image in the operations that remain."""
    closed = jax.make_jaxpr(function)(image)
    return lambda x: _run(closed, [x])[0]


def _run(closed: ClosedJaxpr, inputs: Sequence[Any]) -> list[Any]:
    jaxpr = closed.jaxpr
    values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values |= zip(jaxpr.invars, inputs, strict=True)

    def value(atom):
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        outputs = _apply(equation, [value(atom) for atom in equation.invars])
        values |= zip(equation.outvars, outputs, strict=True)
    return [value(atom) for atom in jaxpr.outvars]


def _apply(equation: Any, inputs: list[Any]) -> Sequence[Any]:
    name, parameters = equation.primitive.name, equation.params
    if name in _CALLS:
        return _run(_closed(parameters), inputs)
    if name == "scan" and parameters["unroll"] >= parameters["length"]:
        return _written_out(inputs, **parameters)
    if name == "stack":
        return [_stack(inputs, parameters["axis"])]
    if name == "pad" and all(inner == 0 <= min(a, b) for a, b, inner in _padding(parameters)):
        return [_pad(*inputs, _padding(parameters))]
    known = name not in _LARGE_WHEN_COMPUTED
    if known and not any(isinstance(each, jax.core.Tracer) for each in inputs):
        with jax.ensure_compile_time_eval():
            return _bind(equation, inputs)
    return _bind(equation, inputs)


def _bind(equation: Any, inputs: list[Any]) -> Sequence[Any]:
    primitive = equation.primitive
    outputs = primitive.bind(*inputs, **primitive.get_bind_params(equation.params))
    return outputs if primitive.multiple_results else [outputs]


def _closed(parameters: dict) -> ClosedJaxpr:
    inner = parameters.get("call_jaxpr", parameters.get("jaxpr"))
    return inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())


def _written_out(inputs: list[Any], *, jaxpr, length, num_consts, num_carry, reverse, **_) -> list:
    """A loop without the loop."""
    fixed, rest = inputs[:num_consts], inputs[num_consts:]
    carry, sequences = rest[:num_carry], rest[num_carry:]
    rows = []
    for step in reversed(range(length)) if reverse else range(length):
        each = [lax.index_in_dim(x, step, keepdims=False) for x in sequences]
        outputs = _run(jaxpr, [*fixed, *carry, *each])
        carry = outputs[:num_carry]
        rows.append(outputs[num_carry:])
    rows = rows[::-1] if reverse else rows
    return [*carry, *(_stack(column, 0) for column in zip(*rows, strict=True))]


def _stack(arrays: Sequence[Any], axis: int) -> Any:
    return lax.concatenate([lax.expand_dims(jnp.asarray(x), (axis,)) for x in arrays], axis)


def _padding(parameters: dict) -> Sequence[tuple[int, int, int]]:
    return parameters["padding_config"]


def _pad(x: Any, value: Any, padding: Sequence[tuple[int, int, int]]) -> Any:
    for axis, (before, after, _) in enumerate(padding):
        shapes = [(*x.shape[:axis], count, *x.shape[axis + 1 :]) for count in (before, after)]
        first, last = (lax.broadcast_in_dim(value, shape, ()) for shape in shapes)
        parts = [*([first] if before else []), x, *([last] if after else [])]
        x = lax.concatenate(parts, axis) if before or after else x
    return x
