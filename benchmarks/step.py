"""A training step (forward, cross-entropy, backward, Adam) of feedseg against PyTorch.

    python -m benchmarks.step --output results/benchmarks/step.json
    python -m benchmarks.step --network unet --side 64 --batch 2 --repeats 1

Networks as in feedseg/models, against the same layers in PyTorch (benchmarks/peers), eager with
channels last and by torch.compile; medians of calls in turns. feedseg's step is the one its
training takes, with choosing and scaling the batch. On a GPU where JAX and PyTorch see one. Run it
on a quiet machine.
"""

from benchmarks import compare


def main() -> None:
    compare.run("step", compare.arguments(__doc__, batch=16, side=256, repeats=5))


if __name__ == "__main__":
    main()
