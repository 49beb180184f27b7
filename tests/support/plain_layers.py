"""The operations of networks in plain NumPy, float64, from their definitions."""

import numpy as np


def doubles(tree):
    """The same tree of float64 arrays."""
    if hasattr(tree, "items"):
        return {key: doubles(value) for key, value in tree.items()}
    return np.asarray(tree, np.float64)


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def conv(x, p, stride=1):
    """Zero-padded convolution of [N, H, W, C] with p["kernel"], p["bias"] if there is one."""
    kernel = p["kernel"]
    size = kernel.shape[0]
    side = size // 2
    height, width = x.shape[1:3]
    x = np.pad(x, ((0, 0), (side, side), (side, side), (0, 0)))
    total = sum(
        x[:, a : a + height : stride, b : b + width : stride] @ kernel[a, b]
        for a in range(size)
        for b in range(size)
    )
    return total + p.get("bias", 0)


def up_conv(x, p):
    """Stamps of p["kernel"], 3x3 (cut off at the end) or 4x4 (cut off by one px all round)."""
    kernel = p["kernel"]
    size, features = kernel.shape[0], kernel.shape[-1]
    first = {3: 0, 4: 1}[size]
    n, height, width, _ = x.shape
    total = np.zeros((n, 2 * height + 2, 2 * width + 2, features))
    for i in range(height):
        for j in range(width):
            stamp = np.einsum("nc,abcf->nabf", x[:, i, j], kernel)
            total[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size] += stamp
    total = total[:, first : first + 2 * height, first : first + 2 * width]
    return total + p.get("bias", 0)


def norm(x, p, stats, train, epsilon=1e-5):
    """Batch normalization; with train by the batch's own mean and variance."""
    mean = x.mean((0, 1, 2)) if train else stats["mean"]
    var = x.var((0, 1, 2)) if train else stats["var"]
    return (x - mean) / np.sqrt(var + epsilon) * p["scale"] + p["bias"]


def conv_norm_act(x, p, stats, train, up=False):
    y = up_conv(x, p["conv"]) if up else conv(x, p["conv"])
    return relu(norm(y, p["norm"], stats["norm"], train))


def pool(x, reduce):
    """Maximum or mean of 2x2 squares."""
    n, h, w, c = x.shape
    return reduce(x.reshape(n, h // 2, 2, w // 2, 2, c), axis=(2, 4))


def bilinear(x, height, width):
    """Linear interpolation with coinciding outer pixels."""

    def along(x, axis, wanted):
        places = np.linspace(0, x.shape[axis] - 1, wanted)
        known = np.arange(x.shape[axis])
        return np.apply_along_axis(lambda line: np.interp(places, known, line), axis, x)

    return along(along(x, 1, height), 2, width)


def canny(gray: np.ndarray, low: int, high: int) -> np.ndarray:
    """Canny edges of one image, pixel by pixel; edges by a flood fill from the strong maxima."""
    height, width = gray.shape
    p = np.pad(gray.astype(int), 1, mode="edge")
    weight = (1, 2, 1)
    dx, dy = np.zeros((2, height, width), int)
    for i in range(height):
        for j in range(width):
            window = p[i : i + 3, j : j + 3]
            dx[i, j] = window[:, 2] @ weight - window[:, 0] @ weight
            dy[i, j] = window[2] @ weight - window[0] @ weight
    m = np.pad(abs(dx) + abs(dy), 1)
    maxima = []
    for i in range(height):
        for j in range(width):
            x, y, here = dx[i, j], dy[i, j], m[i + 1, j + 1]
            if abs(y) * 2**15 < abs(x) * 13573:
                step, strict = (0, 1), False
            elif abs(y) * 2**15 > abs(x) * (13573 + 2**16):
                step, strict = (1, 0), False
            else:
                step, strict = (1, -1 if (x < 0) != (y < 0) else 1), True
            before = m[i + 1 - step[0], j + 1 - step[1]]
            after = m[i + 1 + step[0], j + 1 + step[1]]
            if here > low and here > before and (here > after or (here == after and not strict)):
                maxima.append((i, j))
    stack = [(i, j) for i, j in maxima if m[i + 1, j + 1] > high]
    edges, left = np.zeros((height, width), bool), set(maxima)
    while stack:
        i, j = stack.pop()
        if (i, j) in left:
            left.remove((i, j))
            edges[i, j] = True
            stack += [(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    return edges
