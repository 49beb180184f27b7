"""Several models as one program, in models per hour: copies of the step and stacked arrays."""

from functools import partial

import jax

from benchmarks import measure, together
from benchmarks.gpu.compiling import TOY
from benchmarks.gpu.recorder import Recorder
from feedseg.runs import config as configs

_CONFIGS = {
    "unet": "configs/baseline.py:model=unet",
    "feedback_unet": "configs/feedback_unet.py",
}
_COUNTS = (1, 5, 15)
_REPEATS = 7
_STEPS = 1000  # of a model, for models per hour
_COMPILE_S = {1: 10, 5: 20, 15: 40}  # that a case takes about


def measure_all(recorder: Recorder) -> None:
    jax.config.update("jax_default_matmul_precision", "tensorfloat32")
    networks = ["unet"] if recorder.dry else list(_CONFIGS)
    counts = (1, 2) if recorder.dry else _COUNTS
    for count in counts:
        for network in networks:
            for form in ("solo",) if count == 1 else ("vmap", "copies"):
                case = f"{network}, {count} models, {form}"
                least = 0 if recorder.dry else _COMPILE_S[count]
                recorder.measure(case, partial(_models, network, count, form, recorder.dry), least)


def _models(network: str, count: int, form: str, dry: bool) -> dict:
    config, _ = configs.parse_flags([f"--config={TOY if dry else _CONFIGS[network]}"])
    batch, side = (2, 16) if dry else (config.train.batch_size, 256)
    call = together.forms(config, count, batch, side, (form,))[form]
    compile_s = together.seconds(call)
    seconds = measure.in_turns({form: lambda: jax.block_until_ready(call())}, _REPEATS)[form]
    return measure.rounded(
        {
            "network": network,
            "models": count,
            "form": form,
            "batch": batch,
            "side": side,
            "compile_s": compile_s,
            "seconds": seconds,
            "images_per_s": count * batch / seconds,
            "models_per_hour_of_1000_steps": 3600 * count / (_STEPS * seconds),
        }
    )
