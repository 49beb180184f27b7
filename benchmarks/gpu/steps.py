"""Training steps and inference of five networks beside PyTorch, TF32 and bfloat16.

First all comparisons with eager PyTorch, training before inference, then torch.compile, then
the steps of a whole epoch as one program. feedseg's programs are compiled side by side.
"""

import contextlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import jax

from benchmarks import compare, measure, sides
from benchmarks.gpu import facts
from benchmarks.gpu.recorder import Recorder

_DTYPES = {"float32": "tf32", "bfloat16": "bfloat16"}  # of the arrays: precision of the products
_EPOCH_STEPS = 12  # one program: 192 crops in batches of 16
_REPEATS = 7
TOY = "tests/support/tiny.py"  # configuration at toy size
_EAGER_S, _COMPILED_S = 4, 25  # that a case takes about


def measure_all(recorder: Recorder) -> None:
    jax.config.update("jax_default_matmul_precision", "tensorfloat32")
    if recorder.dry:
        sides.CONFIGS["unet"] = TOY
    has_torch = measure.torch is not None
    if has_torch:
        measure.torch.backends.cudnn.benchmark = True  # one size, so its search is worth it
    else:
        recorder.leave_out("PyTorch's side", "PyTorch is not installed")
    eager = ("eager",) if has_torch else ()
    steps = _cases("step", recorder)
    _compare_all(recorder, steps, eager, _EAGER_S)
    _compare_all(recorder, _cases("forward", recorder), eager, _EAGER_S)
    if has_torch:
        forward = _cases("forward", recorder)
        for case in forward[:1] if recorder.dry else steps + forward:
            _compare_all(recorder, [case], ("compiled",), _COMPILED_S)
    several = 2 if recorder.dry else _EPOCH_STEPS
    _compare_all(recorder, [case._replace(dispatch=several) for case in steps], (), _EAGER_S)


def _cases(kind: str, recorder: Recorder) -> list[sides.Case]:
    if recorder.dry:
        size = dict(batch=2, side=16)
        return [sides.Case(kind, "unet", dtype=dtype, **size) for dtype in _DTYPES]
    size = {"step": dict(batch=16, side=256), "forward": dict(batch=1, side=1024)}[kind]
    return [
        sides.Case(kind, name, dtype=dtype, **size) for dtype in _DTYPES for name in sides.CONFIGS
    ]


def _compare_all(
    recorder: Recorder, cases: Sequence[sides.Case], peers: tuple[str, ...], least_s: float
) -> None:
    """One case after the other, once the programs of all are compiled."""
    if not cases:
        return
    with ThreadPoolExecutor(min(len(cases), measure.cores())) as pool:
        compiled = {case: pool.submit(sides.feedseg_side, case) for case in cases}
        for future in compiled.values():  # what compiles meanwhile would disturb the times
            with contextlib.suppress(Exception):  # told with its case
                future.result(max(1.0, recorder.left()))
        for case, future in compiled.items():
            action = partial(_compare, case, peers, future, recorder.dry)
            recorder.measure(_name(case, peers), action, least_s)


def _name(case: sides.Case, peers: tuple[str, ...]) -> str:
    size = f"{case.batch} x {case.side} x {case.side}"
    several = f", {case.dispatch} steps" if case.dispatch > 1 else ""
    against = f", beside {peers[0]}" if peers else ""
    return f"{case.case} {case.network} {_DTYPES[case.dtype]} {size}{several}{against}"


def _compare(case: sides.Case, peers: tuple[str, ...], own: Future, dry: bool) -> dict:
    precision = _DTYPES[case.dtype]
    peaks = measure.limits(precision, **(facts.TOY if dry else {}))
    if measure.torch is not None:  # the peaks may have been taken with another precision
        measure.torch.set_float32_matmul_precision("high")
    row = compare.compare(case, peers, _REPEATS, own.result(1), peaks)
    row["kind"] = row.pop("case")
    return measure.rounded({**row, "precision": precision})
