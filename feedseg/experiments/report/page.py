"""The page of a report: scores, figures, tests and provenance."""

from collections.abc import Sequence

import feedseg
from feedseg.evaluation.metrics import ABSENT_RULE
from feedseg.experiments.report import curves, significance, tables
from feedseg.experiments.report.collect import Collection, Method
from feedseg.experiments.report.document import HtmlPage
from feedseg.experiments.report.folder import ReportFolder
from feedseg.experiments.report.gallery import gallery
from feedseg.experiments.report.provenance import origins, short
from feedseg.experiments.report.significance import Comparison

_TEST_NOTES = (
    "Differences are points of percent, first method minus second; 95 % interval by Student's t; "
    "p-values are two-sided, Holm corrects them for all pairs of the table.",
    "Training parts of different folds overlap, so runs are not independent: the p-values over "
    "folds are too small.",
    f"With fewer than {significance.FEWEST} pairs, or equal differences, there is no interval and "
    f"no test; with fewer than {significance.FEWEST_RANKS} no signed-rank test.",
)
_IMAGE_NOTE = (
    "An image's score is its mean over the common seeds. Images predicted by one trained network "
    "are not independent of its training: these p-values say nothing about other folds and seeds."
)


def page(
    folder: ReportFolder, collection: Collection, metric: str, tests: dict[str, list], images: int
) -> str:
    """The HTML of a report, whose figures are drawn into the folder.

    tests: comparisons over `runs` and over `images`. images: number of test images to show.
    """
    names = [method.name for method in collection.methods]
    document = HtmlPage("Report of " + (names[0] if len(names) == 1 else f"{len(names)} methods"))
    document.notes([f"Warning: {line}" for line in collection.warnings], "warning")
    _add_scores(document, collection, metric)
    metadata = {"Title": "feedseg report", "Creator": f"feedseg {feedseg.__version__}"}
    metadata["Subject"] = "; ".join(origins(collection))
    finals = [method for method in collection.methods if method.runs[0].output == "final"]
    _add_curves(document, folder, finals, metadata)
    _add_boxes(document, folder, collection, metric, metadata)
    _add_gallery(document, folder, finals, images, metadata)
    _add_tests(document, tests)
    _add_provenance(document, collection)
    return document.text()


def table_notes(collection: Collection, metric: str) -> list[str]:
    """What the numbers of the table are, and the rule for absent classes."""
    unit = {"iou": "IoU", "dice": "Dice"}[metric]
    return [
        f"{unit} on the test images in percent: mean ± population standard deviation over runs.",
        ABSENT_RULE,
    ]


def _add_scores(document: HtmlPage, collection: Collection, metric: str) -> None:
    document.section("Scores")
    document.table(tables.as_html(tables.score_table(collection, metric)))
    document.notes(table_notes(collection, metric))


def _add_curves(
    document: HtmlPage, folder: ReportFolder, methods: Sequence[Method], metadata: dict
) -> None:
    document.section("Learning curves")
    target, vector = folder.path / "curves.png", folder.path / "curves.pdf"
    if not curves.learning_curves(methods, target, [vector], metadata):
        document.notes(["Left out: no run has recorded epochs (metrics.jsonl)."])
        return
    folder.keep("curves.png", "curves.pdf")
    document.picture(target, "training loss and validation mean IoU against the epoch")
    document.notes(["Line: mean over the runs; band: from the lowest to the highest run."])


def _add_boxes(
    document: HtmlPage, folder: ReportFolder, collection: Collection, metric: str, metadata: dict
) -> None:
    document.section("Runs")
    target, vector = folder.path / "boxes.png", folder.path / "boxes.pdf"
    curves.boxes(collection.methods, tables.columns(collection, metric), target, [vector], metadata)
    folder.keep("boxes.png", "boxes.pdf")
    document.picture(target, "scores of the single runs of each method")
    document.notes([curves.BOX_NOTE])


def _add_gallery(
    document: HtmlPage, folder: ReportFolder, methods: Sequence[Method], count: int, metadata: dict
) -> None:
    document.section("Test images")
    target = folder.path / "gallery.png"
    shown = gallery(methods, target, count, metadata)
    if shown.images:
        folder.keep("gallery.png")
        document.picture(target, "test images, their truth, and the prediction of each method")
        document.notes(["From top to bottom: " + ", ".join(shown.images) + "."])
    document.notes(shown.notes)


def _add_tests(document: HtmlPage, tests: dict[str, list[Comparison]]) -> None:
    document.section("Paired tests")
    if not tests["runs"]:
        document.notes(["One method only: nothing to compare."])
        return
    if apart := sum(not test.pairs for test in tests["runs"]):
        document.notes([f"{apart} pair(s) of methods share no fold and seed on equal test images."])
    if apart == len(tests["runs"]):
        return
    document.notes(["Over common folds and seeds, on the same test images:"])
    document.table(tables.as_html(_test_table(tests["runs"])))
    document.notes(_TEST_NOTES)
    if any(test.pairs for test in tests["images"]):
        document.notes(["Over the test images of the common folds and seeds:"])
        document.table(tables.as_html(_test_table(tests["images"])))
        document.notes([_IMAGE_NOTE])
    else:
        document.notes(["These results hold no scores of single images to compare."])


def _test_table(comparisons: Sequence[Comparison]) -> tables.TextTable:
    head = ("first", "second", "pairs", "difference", "95 % interval", "p (t)", "Holm")
    head += ("p (Wilcoxon)", "Holm")
    rows = []
    for c in (comparison for comparison in comparisons if comparison.pairs):
        interval = "-" if c.low is None else f"{c.low:+.2f} to {c.high:+.2f}"
        difference = "-" if c.difference is None else f"{c.difference:+.2f}"
        values = map(_p, (c.p_t, c.p_t_holm, c.p_wilcoxon, c.p_wilcoxon_holm))
        rows.append((c.first, c.second, c.pairs, difference, interval, *values))
    return tables.plain_table(head, rows)


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _add_provenance(document: HtmlPage, collection: Collection) -> None:
    document.section("Where the numbers come from")
    head = ("method", "run", "fold", "seed", "output", "best_epoch", "seconds", "version", "jax")
    head += ("python", "device", "config_hash", "data_hash")
    rows = [[short(key, row[key]) for key in head] for row in tables.run_rows(collection)]
    document.table(
        tables.as_html(tables.plain_table([key.replace("_", " ") for key in head], rows))
    )
    document.notes([f"Made by feedseg {feedseg.__version__} from these directories alone."])
