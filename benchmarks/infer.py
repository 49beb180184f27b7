"""Inference (logits of one large image) of feedseg against PyTorch.

    python -m benchmarks.infer --output results/benchmarks/infer.json
    python -m benchmarks.infer --network unet --side 64 --repeats 1

As `benchmarks.step`, in evaluation mode.
"""

from benchmarks import compare


def main() -> None:
    compare.run("forward", compare.arguments(__doc__, batch=1, side=1024, repeats=7))


if __name__ == "__main__":
    main()
