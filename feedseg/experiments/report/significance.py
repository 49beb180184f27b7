"""Paired tests between methods: over common folds and seeds, and over common test images."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import stats

from feedseg.experiments.report.collect import FinishedRun, Method
from feedseg.runtime.tables import known

FEWEST = 2  # pairs needed for an interval and a t-test
FEWEST_RANKS = 5  # pairs needed for a signed-rank test; with fewer no p-value falls below 0.12


@dataclass(frozen=True)
class Comparison:
    """Differences `first - second` of paired scores, in points of percent.

    Values that too few pairs or equal differences do not allow are None.
    p_t, p_wilcoxon: two-sided; *_holm: corrected for all comparisons of the list.
    """

    first: str
    second: str
    pairs: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_t: float | None = None
    p_t_holm: float | None = None
    p_wilcoxon: float | None = None
    p_wilcoxon_holm: float | None = None


def over_runs(methods: Sequence[Method], key: str, baseline: str = "") -> list[Comparison]:
    """Methods compared over the folds and seeds they share, on the same test images.

    key: of the score. baseline: name of the method that the others are compared with, else all
    with all.
    """

    def scores(method: Method) -> dict:
        return {run.repeat: run.score(key) for run in method.runs}

    return _compared(methods, scores, baseline)


def over_images(methods: Sequence[Method], key: str, baseline: str = "") -> list[Comparison]:
    """Methods compared over the test images of the folds and seeds they share.

    The score of an image is its mean over the common seeds. key: as stored in `image_scores`.
    """

    def scores(method: Method) -> dict:
        return {
            (*run.repeat, image): value
            for run in method.runs
            for image, value in enumerate(_image_scores(run, key))
        }

    return _compared(methods, scores, baseline, _mean_over_seeds)


def _image_scores(run: FinishedRun, key: str) -> list[float | None]:
    values = run.result.get("image_scores", {}).get(key, []) if run.output == "final" else []
    return [None if value is None else 100 * value for value in values]


def _mean_over_seeds(differences: dict) -> dict:
    images = defaultdict(list)
    for (fold, _, condition, image), value in differences.items():
        images[fold, condition, image].append(value)
    return {key: float(np.mean(values)) for key, values in images.items()}


def _compared(
    methods: Sequence[Method],
    scores: Callable[[Method], dict],
    baseline: str,
    reduce: Callable[[dict], dict] = dict,
) -> list[Comparison]:
    scored = {method.name: scores(method) for method in methods}
    comparisons = []
    for first, second in _pairs([method.name for method in methods], baseline):
        a, b = scored[first], scored[second]
        both = [key for key in a if key in b and len(known([a[key], b[key]])) == 2]
        differences = reduce({key: a[key] - b[key] for key in both})
        comparisons.append(compare(first, second, np.array(list(differences.values()))))
    return _corrected(comparisons)


def _pairs(names: Sequence[str], baseline: str) -> list[tuple[str, str]]:
    if baseline:
        return [(name, baseline) for name in names if name != baseline]
    return list(combinations(names, 2))


def compare(first: str, second: str, differences: np.ndarray) -> Comparison:
    """Mean d of the n differences, its 95 % interval, and two-sided tests that it is 0.

        d ± t s / sqrt(n),   t: 97.5 % point of Student's t with n - 1 degrees of freedom

    s: standard deviation of the sample. differences: [n], in points of percent.
    """
    count = len(differences)
    result = Comparison(first, second, count)
    if not count:
        return result
    result = replace(result, difference=float(differences.mean()))
    if count < FEWEST or np.ptp(differences) < 1e-9:  # all alike: no spread to test against
        return result
    test = stats.ttest_1samp(differences, 0.0)
    low, high = test.confidence_interval(0.95)
    result = replace(result, low=float(low), high=float(high), p_t=float(test.pvalue))
    if count < FEWEST_RANKS:
        return result
    return replace(result, p_wilcoxon=float(stats.wilcoxon(differences).pvalue))


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    t = holm([test.p_t for test in comparisons])
    ranks = holm([test.p_wilcoxon for test in comparisons])
    return [
        replace(test, p_t_holm=p, p_wilcoxon_holm=q)
        for test, p, q in zip(comparisons, t, ranks, strict=True)
    ]


def holm(values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for their number m by Holm's step-down rule; None stays None.

    p'_(i) = max over j <= i of min(1, (m - j + 1) p_(j)),   p_(1) <= ... <= p_(m)
    """
    order = sorted((value, index) for index, value in enumerate(values) if value is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (value, index) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * value))
        corrected[index] = highest
    return corrected
