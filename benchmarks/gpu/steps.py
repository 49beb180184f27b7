"""Training steps and inference of five networks beside PyTorch, TF32 and bfloat16.

First all comparisons with eager PyTorch, training before inference, then torch.compile, then
the steps of a whole epoch as one program. feedseg's programs are compiled side by side, each in a
process of its own: threads of one process wait for each other at the device.
"""

from collections.abc import Sequence
from functools import partial

from benchmarks import compare, measure, sides
from benchmarks.gpu import compiling, facts
from benchmarks.gpu.recorder import Recorder

_DTYPES = {"float32": "tf32", "bfloat16": "bfloat16"}  # of the arrays: precision of the products
_EPOCH_STEPS = 12  # one program: 192 crops in batches of 16
_REPEATS = 7
_LAST = "aep"  # it takes longest
_COMPILE_SHARE = 0.5  # of the time left, for the programs of a list of cases
_EAGER_S, _COMPILED_S = 4, 25  # that a case takes about


def measure_all(recorder: Recorder) -> None:
    compiling.prepare(recorder.dry)
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
        _compare_all(
            recorder, forward if recorder.dry else steps + forward, ("compiled",), _COMPILED_S
        )
    several = 2 if recorder.dry else _EPOCH_STEPS
    steps = steps[:1] if recorder.dry else steps
    _compare_all(recorder, [case._replace(dispatch=several) for case in steps], (), _EAGER_S)


def _cases(kind: str, recorder: Recorder) -> list[sides.Case]:
    if recorder.dry:
        size = dict(batch=2, side=16)
        dtypes = list(_DTYPES)[: 2 if kind == "step" else 1]
        return [sides.Case(kind, "unet", dtype=dtype, **size) for dtype in dtypes]
    size = {"step": dict(batch=16, side=256), "forward": dict(batch=1, side=1024)}[kind]
    return [
        sides.Case(kind, name, dtype=dtype, **size)
        for dtype in _DTYPES
        for name in sorted(sides.CONFIGS, key=_LAST.__eq__)
    ]


def _compare_all(
    recorder: Recorder, cases: Sequence[sides.Case], peers: tuple[str, ...], least_s: float
) -> None:
    """One case after the other, once the programs of all are compiled."""
    kept = compiling.compile_all(cases, recorder.dry, _COMPILE_SHARE * recorder.left())
    for case in cases:
        name = _name(case, peers)
        if case in kept:
            recorder.measure(name, partial(_compare, case, peers, recorder.dry), least_s)
        else:
            recorder.leave_out(name, "not compiled in time")


def _name(case: sides.Case, peers: tuple[str, ...]) -> str:
    size = f"{case.batch} x {case.side} x {case.side}"
    several = f", {case.dispatch} steps" if case.dispatch > 1 else ""
    against = f", beside {peers[0]}" if peers else ""
    return f"{case.case} {case.network} {_DTYPES[case.dtype]} {size}{several}{against}"


def _compare(case: sides.Case, peers: tuple[str, ...], dry: bool) -> dict:
    precision = _DTYPES[case.dtype]
    peaks = measure.limits(precision, **(facts.TOY if dry else {}))
    if measure.torch is not None:  # the peaks may have been taken with another precision
        measure.torch.set_float32_matmul_precision("high")
    row = compare.compare(case, peers, _REPEATS, sides.feedseg_side(case), peaks)
    row["kind"] = row.pop("case")
    return measure.rounded({**row, "precision": precision})
