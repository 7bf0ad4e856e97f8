"""The measures against cases that can be checked by hand."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from training.metrics import Score, aggregated_jaccard, matches, overlap, table

# One row of pixels each: nucleus 1 has an IoU of 2/4, nucleus 2 (found as 7) one of 2/3.
TRUE = np.array([[1, 1, 1, 1, 0, 2, 2, 0]])
FOUND = np.array([[4, 4, 0, 0, 0, 7, 7, 7]])
NOTHING = np.zeros((1, 8), int)


def score(*images: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    total = Score()
    for true, found in images:
        total.add(true, found, found > 0, len(np.unique(found[found > 0])))
    return total.measures()


def test_pairs_of_nuclei() -> None:
    pairs = overlap(TRUE, FOUND)
    assert pairs.both.tolist() == [[2, 0], [0, 2]]
    assert pairs.true.tolist() == [4, 2]
    assert pairs.predicted.tolist() == [2, 3]
    assert pairs.union.tolist() == [[4, 7], [4, 3]]
    assert pairs.iou[1, 1] == pytest.approx(2 / 3)


def test_images_without_background() -> None:
    pairs = overlap(np.full((2, 3), 5), np.array([[1, 1, 2], [1, 1, 2]]))
    assert pairs.both.tolist() == [[4, 2]]
    assert (pairs.true.tolist(), pairs.predicted.tolist()) == ([6], [4, 2])


def test_measures_of_one_image() -> None:
    by_hand = {
        "Dice": Fraction(2 * 4, 6 + 5),
        "pooled Dice": Fraction(2 * 4, 6 + 5),
        "AP@0.5": Fraction(2, 2),
        "AP@0.6": Fraction(1, 1 + 1 + 1),
        "AP@0.7": Fraction(0, 4),
        "AP@0.8": Fraction(0, 4),
        "AP@0.9": Fraction(0, 4),
        "F1@0.5": Fraction(2 * 2, 2 * 2),
        "AJI": Fraction(2 + 2, 4 + 3),
        "PQ": (Fraction(1, 2) + Fraction(2, 3)) / 2,
        "count error": Fraction(0),
    }
    assert score((TRUE, FOUND)) == pytest.approx({name: float(value) for name, value in by_hand.items()})


def test_images_count_together_or_each_for_itself() -> None:
    """A second image has one nucleus of two pixels, exactly found, and two false ones next to it."""
    true, found = np.array([[0, 9, 9, 0, 0, 0, 0, 0]]), np.array([[0, 1, 1, 0, 2, 0, 3, 3]])
    by_hand = {
        "Dice": (Fraction(8, 11) + Fraction(2 * 2, 2 + 5)) / 2,  # mean over the images
        "pooled Dice": Fraction(8 + 4, 11 + 7),
        "AP@0.5": Fraction(3, 3 + 2 + 0),  # over all images together
        "AP@0.6": Fraction(2, 2 + 3 + 1),
        "AP@0.7": Fraction(1, 1 + 4 + 2),
        "AP@0.8": Fraction(1, 7),
        "AP@0.9": Fraction(1, 7),
        "F1@0.5": Fraction(2 * 3, 2 * 3 + 2 + 0),
        "AJI": (Fraction(4, 7) + Fraction(2, 2 + 1 + 2)) / 2,
        "PQ": (Fraction(1, 2) + Fraction(2, 3) + 1) / (3 + Fraction(2, 2)),
        "count error": Fraction(0 + 2, 2 + 1),
    }
    assert score((TRUE, FOUND), (true, found)) == pytest.approx({name: float(value) for name, value in by_hand.items()})


def test_one_true_nucleus_matches_one_found_one_only() -> None:
    """Halved exactly, each half has an IoU of one half; one of them matches, the other is false."""
    true, found = np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 2]])
    measures = score((true, found))
    assert measures["AP@0.5"] == pytest.approx(1 / 2)
    assert measures["F1@0.5"] == pytest.approx(2 / 3)
    assert measures["AJI"] == pytest.approx(2 / (4 + 2))
    assert measures["PQ"] == pytest.approx(0.5 / (1 + 0.5))


def test_the_most_matches_not_the_best_first() -> None:
    iou = np.array([[0.8, 0.6], [0.7, 0.1]])
    rows, columns = matches(iou, 0.5)
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 1), (1, 0)]
    assert len(matches(iou, 0.75)[0]) == 1
    assert len(matches(np.zeros((0, 3)), 0.5)[0]) == 0


def test_aji_lets_two_true_nuclei_choose_the_same_found_one() -> None:
    """As published: a merged nucleus adds to the intersection for both, and its whole area to the union twice."""
    merged = overlap(np.array([[1, 1, 2, 2]]), np.array([[3, 3, 3, 3]]))
    assert aggregated_jaccard(merged) == pytest.approx((2 + 2) / (4 + 4))


@pytest.mark.parametrize(
    ("true", "found", "expected", "error"),
    [(NOTHING, NOTHING, 1, 0), (TRUE, NOTHING, 0, 1), (NOTHING, FOUND, 0, 2), (TRUE, TRUE, 1, 0)],
)
def test_nothing_and_everything(true: np.ndarray, found: np.ndarray, expected: float, error: float) -> None:
    measures = score((true, found))
    assert measures.pop("count error") == error
    assert set(measures.values()) == {expected}


def test_the_order_of_labels_does_not_matter() -> None:
    random = np.random.default_rng(0)
    true, found = random.integers(0, 12, (40, 40)), random.integers(0, 9, (40, 40))
    renamed = random.permutation(np.arange(1, 60))[found - 1] * (found > 0)
    assert score((true, renamed)) == score((true, found))


def test_a_table_has_a_row_for_each_score() -> None:
    total = Score()
    total.add(TRUE, FOUND, FOUND > 0, 2)
    head, rule, row = table([(("here", "1"), total)], ("where", "scale")).splitlines()
    assert head.startswith("| where | scale | images | nuclei | Dice | pooled Dice | AP@0.5 |")
    assert rule.count("---") == head.count("|") - 1 == row.count("|") - 1
    assert row.startswith("| here | 1 | 1 | 2 | 0.727 | 0.727 | 1.000 | 0.333 |")
