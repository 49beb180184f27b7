"""PyTorch's side of a comparison: a training step and inference, eager or by torch.compile."""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measure, peers
from benchmarks.sides import Case, Side, finite


def side(case: Case, compiled: bool) -> Side:
    """The network in PyTorch, channels last, eager or by torch.compile."""
    run = {"step": _torch_step, "forward": _torch_forward}[case.case](case, compiled)
    compile_s = measure.seconds(run) if compiled else 0.0
    return Side(run, compile_s, measure.torch_peak_mib(run), {})


def _torch_network(case: Case):
    torch.manual_seed(0)
    network = peers.build(case.network, case.classes).to(measure.torch_device())
    for parameter in network.parameters():
        if parameter.dim() == 4:  # AWEL's kernel has 5
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return network


def _torch_data(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = case.data()
    image = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)
    image = image.to(measure.torch_device(), memory_format=torch.channels_last)
    return image, torch.from_numpy(labels).long().to(measure.torch_device())


def _autocast(case: Case):
    """The forward pass in bfloat16 where it is asked for; weights stay float32."""
    kind = measure.torch_device().type
    return torch.autocast(kind, torch.bfloat16, enabled=case.dtype == "bfloat16")


def _torch_step(case: Case, compiled: bool) -> Callable[[], float]:
    network = _torch_network(case).train()
    image, labels = _torch_data(case)
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)

    def loss_of(image, labels):
        return peers.loss(network, image, labels)

    loss_of = torch.compile(loss_of) if compiled else loss_of

    def run() -> float:
        adam.zero_grad()
        with _autocast(case):
            loss = loss_of(image, labels)
        loss.backward()
        adam.step()
        measure.synchronize()
        return finite(loss.item())

    return run


def _torch_forward(case: Case, compiled: bool) -> Callable[[], torch.Tensor]:
    network, image = _torch_network(case).eval(), _torch_data(case)[0]
    network = torch.compile(network) if compiled else network

    def first(found):
        return found[0] if isinstance(found, tuple) else found

    def run() -> torch.Tensor:
        with torch.inference_mode(), _autocast(case):
            logits = first(network(image))
        measure.synchronize()
        return logits

    return run


def useful_flops(case: Case) -> int:
    """Operations of the network's convolutions and products in the plain form, 2 per product.

    Counted by PyTorch without computing anything: a compiler's own number counts a loop once.
    """
    with torch.device("meta"):
        network = peers.build(case.network, case.classes)
        image = torch.empty(case.batch, 1, case.side, case.side)
        labels = torch.empty(case.batch, case.side, case.side, dtype=torch.long)
    counter = FlopCounterMode(display=False)
    with counter:
        if case.case == "step":
            peers.loss(network.train(), image, labels).backward()
        else:
            with torch.no_grad():
                network.eval()(image)
    return counter.get_total_flops()
