"""Trains the U-Net on ssTEM in plain PyTorch as configs/unet.py does in feedseg.

    python -m benchmarks.peers.train --data DATA/sstem_vnc/stack1 --workdir runs/torch --epochs 5

The same files, crops, parts, augmentation (rotations and mirrors), loss (cross-entropy + Dice),
Adam with warm-up and cosine, validation after each epoch, scores of the best epoch on the test
images. Everything is in memory; on a GPU if there is one.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image
from torch import nn

from benchmarks.peers.unet import Unet

CLASSES = 4
MASKS = (("membranes", 1), ("mitochondria", 2), ("synapses", 3))  # the later one wins
EVALUATED = 16  # images at once
NORM = dict(momentum=0.1, eps=1e-3)


def read(stack: Path, crop: int) -> tuple[np.ndarray, np.ndarray]:
    """Crops [N, crop, crop] of the sections in stack1/, row by row, and their class ids."""
    images, labels = [], []
    masks = {folder: sorted((stack / folder).glob("*.png")) for folder, _ in MASKS}
    for index, path in enumerate(sorted((stack / "raw").glob("*.tif"))):
        image = tifffile.imread(path)
        label = np.zeros(image.shape, np.uint8)
        for folder, class_id in MASKS:
            label[np.asarray(Image.open(masks[folder][index]).convert("L")) >= 128] = class_id
        for y in range(0, image.shape[0], crop):
            for x in range(0, image.shape[1], crop):
                images.append(image[y : y + crop, x : x + crop])
                labels.append(label[y : y + crop, x : x + crop])
    return np.stack(images), np.stack(labels)


def split(total: int, counts: tuple[int, int, int]) -> list[np.ndarray]:
    """Training, validation and test crops at random, those of feedseg's fold 0."""
    order = np.random.default_rng([0, 0]).permutation(total)
    return np.split(order[: sum(counts)], np.cumsum(counts)[:2])


def turned(image: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One of the 8 rotations and mirrors for each image [N, 1, H, W] and its labels [N, H, W]."""
    pairs = []
    for pair in zip(image, labels[:, None], strict=True):
        turns, mirror = int(torch.randint(4, ())), bool(torch.randint(2, ()))
        pair = [torch.rot90(each, turns, (1, 2)) for each in pair]
        pairs.append([each.flip(2) for each in pair] if mirror else pair)
    image, labels = (torch.stack(each) for each in zip(*pairs, strict=True))
    return image, labels[:, 0]


def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy and soft Dice."""
    cross = nn.functional.cross_entropy(logits, labels)
    q = torch.softmax(logits, 1)
    y = nn.functional.one_hot(labels, CLASSES).permute(0, 3, 1, 2)
    overlap, total = (q * y).sum((0, 2, 3)), q.sum((0, 2, 3)) + y.sum((0, 2, 3))
    return cross + 1 - ((2 * overlap + 1) / (total + 1)).mean()


def start(network: nn.Module) -> None:
    """Kernels and biases as Keras draws them."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
        if isinstance(layer, nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.zeros_(layer.bias)


def iou(matrix: torch.Tensor) -> list[float]:
    """Intersection over union of each class; NaN if it is nowhere."""
    hits = matrix.diag().double()
    return (hits / (matrix.sum(0) + matrix.sum(1) - hits)).tolist()


def evaluate(network: nn.Module, image: torch.Tensor, labels: torch.Tensor) -> dict:
    """IoU of each class and its mean from one confusion matrix, truth in rows."""
    network.eval()
    matrix = torch.zeros(CLASSES * CLASSES, dtype=torch.long, device=image.device)
    with torch.inference_mode():
        for one, truth in zip(image.split(EVALUATED), labels.split(EVALUATED), strict=True):
            pairs = CLASSES * truth + network(one).argmax(1)
            matrix += torch.bincount(pairs.flatten(), minlength=CLASSES * CLASSES)
    scores = iou(matrix.view(CLASSES, CLASSES))
    return {"miou": float(np.nanmean(scores)), "iou": scores}


def rate(step: int, per_epoch: int, epochs: int) -> float:
    """Share of the learning rate: one epoch of warm-up, then a cosine to 0."""
    if step < per_epoch:
        return step / per_epoch
    done = (step - per_epoch) / max(1, per_epoch * (epochs - 1))
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder stack1")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=256, help="px")
    parser.add_argument("--counts", type=int, nargs=3, default=(192, 48, 80))
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def epoch_of(network, image, truth, batches, adam, schedule) -> float:
    """One epoch; the mean loss. batches: indices of the images of each step."""
    network.train()
    total = 0.0
    for index in batches:
        one, labels = turned(image[index], truth[index])
        adam.zero_grad()
        value = loss(network(one.contiguous(memory_format=torch.channels_last)), labels)
        value.backward()
        adam.step()
        schedule.step()
        total += value.item()
    return total / len(batches)


def fit(network, image, truth, train, val, options) -> list[float]:
    """All epochs; the best variables go to best.pt. Returns the validation scores."""
    adam = torch.optim.Adam(network.parameters(), lr=2e-3)
    per_epoch = len(train) // options.batch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda step: rate(step, per_epoch, options.epochs)
    )
    scores = []
    for epoch in range(1, options.epochs + 1):
        order = train[torch.randperm(len(train))][: per_epoch * options.batch]
        mean = epoch_of(network, image, truth, order.split(options.batch), adam, schedule)
        scores.append(evaluate(network, image[val], truth[val])["miou"])
        print(f"epoch {epoch}  loss {mean:.4f}  val mIoU {100 * scores[-1]:.2f}", flush=True)
        if scores[-1] >= max(scores):
            torch.save(network.state_dict(), options.workdir / "best.pt")
    return scores


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    options.workdir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, labels = read(options.data, options.crop)
    image = torch.from_numpy(images)[:, None].float().div(255).to(device)
    truth = torch.from_numpy(labels).long().to(device)
    train, val, test = (torch.from_numpy(part) for part in split(len(images), options.counts))
    network = Unet(CLASSES, dropout=0.0, norm=NORM)
    start(network)
    network = network.to(device, memory_format=torch.channels_last)
    scores = fit(network, image, truth, train, val, options)
    network.load_state_dict(torch.load(options.workdir / "best.pt"))
    result = {"val_miou": scores, "test": evaluate(network, image[test], truth[test])}
    (options.workdir / "result.json").write_text(json.dumps(result))
    print(f"test mIoU {100 * result['test']['miou']:.2f}")


if __name__ == "__main__":
    main()
