"""Weights of the released AEP networks (PyTorch) as variables of `feedseg.models.aep`."""

import jax
import jax.numpy as jnp
import numpy as np


def _from_torch_net(state: dict[str, np.ndarray]) -> tuple[dict, dict]:
    """Parameters and running statistics of one network."""
    params, stats = {}, {}
    names = [f"conv{i}" for i in range(1, 11)] + [f"deconv{i}" for i in (1, 2, 3)]
    for name in names:
        norm = name.replace("deconv", "bnde").replace("conv", "bn")
        order = (2, 3, 0, 1) if name.startswith("deconv") else (2, 3, 1, 0)
        params[name] = {
            "conv": {
                "kernel": state[f"{name}.weight"].transpose(order),
                "bias": state[f"{name}.bias"],
            },
            "norm": {"scale": state[f"{norm}.weight"], "bias": state[f"{norm}.bias"]},
        }
        stats[name] = {
            "norm": {"mean": state[f"{norm}.running_mean"], "var": state[f"{norm}.running_var"]}
        }
    kernel = state["conv_f.weight"].transpose(2, 3, 1, 0)
    params["conv_f"] = {"kernel": kernel, "bias": state["conv_f.bias"]}
    return params, stats


def from_torch(
    state_dict_net1: dict[str, np.ndarray],
    state_dict_net2: dict[str, np.ndarray],
    state_dict_ensemble: dict[str, np.ndarray],
) -> dict:
    """Variables of `Model(penultimate=16, ensemble="learned")` from the released networks.

    The three dicts hold NumPy arrays under the names of the released code: conv1...conv10,
    deconv1...3, bn1...bn10, bnde1...3, conv_f, and the ensemble's conv1 [1, S, 1, 1, 1].
    Raises KeyError naming a missing array.
    """
    params1, stats1 = _from_torch_net(state_dict_net1)
    params2, stats2 = _from_torch_net(state_dict_net2)
    awel = {
        "weights": state_dict_ensemble["conv1.weight"].reshape(-1),
        "bias": state_dict_ensemble["conv1.bias"],
    }
    params = {"network1": params1, "network2": params2, "awel": awel}
    stats = {"network1": stats1, "network2": stats2}
    return jax.tree.map(jnp.asarray, {"params": params, "batch_stats": stats})
