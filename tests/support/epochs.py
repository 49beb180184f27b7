"""Rows of metrics.jsonl of a run of three epochs, as loggers get them."""

ROWS = [
    {"epoch": 1, "step": 4, "lr": 0.1, "loss": 1.25, "val/miou": 0.5},
    {"epoch": 2, "step": 8, "lr": 0.1, "loss": 0.1 + 0.2, "val/miou": None},
    {"epoch": 3, "step": 12, "lr": 0.05, "loss": 0.75, "val/miou": 0.625},
]
LIVE = [row | {"images_per_s": 10.0 * row["epoch"]} for row in ROWS]  # while the run goes on
