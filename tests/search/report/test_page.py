"""The page of a study: all marks in it, nothing of a trial's own words as markup, small and self-contained."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from optuna._hypervolume import compute_hypervolume

from search.report import course, foretold, importance
from search.report.page import page
from tests.search.report.reports import report

NOWHERE = Path("no/such/folder")
VOID = {"meta", "link", "br"}


class Checked(HTMLParser):
    """Counts elements by class, and refuses ones that are closed in another order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.classes: list[str] = []
        self.outside: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.classes += (named.get("class") or "").split()
        places = [value for key, value in attrs if key in ("src", "href")]
        self.outside += [value for value in places if not value.startswith(("#", "data:"))]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("objectives", [1, 2, 3, 5])
def test_every_complete_trial_has_a_mark_in_each_plane(objectives):
    found = report(30, objectives, failed=3)
    text = page(found, NOWHERE)
    seen = Checked(text)
    planes = {1: 2, 2: 1, 3: 3, 5: 4}[objectives]  # one objective: over trials and over time
    assert seen.classes.count("dot") == 27 * planes
    assert seen.classes.count("way") == 27  # parallel coordinates; no file has a learning curve here
    assert not seen.outside and "http" not in re.sub(r'"http://www.w3.org/2000/svg"', "", text)


@pytest.mark.parametrize(("trials", "objectives", "failed"), [(0, 2, 0), (1, 2, 0), (4, 3, 4), (2, 1, 0)])
def test_a_study_that_has_next_to_nothing_has_a_page(trials, objectives, failed):
    Checked(page(report(trials, objectives, failed=failed), NOWHERE))


def test_words_of_a_trial_are_no_markup():
    text = page(report(6, failed=2), NOWHERE)
    assert "made up &lt;b&gt;" in text and "<b>" not in text and text.count("</script>") == 2
    data = json.loads(re.search(r'id="details">(.*?)</script>', text, re.DOTALL)[1])
    assert data["trials"]["5"]["told"][1] == ["reason", "the loss is nan at step 3"]
    assert "2 failed, 3 refused before a trial" in text


def test_five_thousand_trials_are_below_ten_megabytes():
    assert len(page(report(5000, 2, rungs=True, predicted=True), NOWHERE).encode()) < 10e6


@pytest.mark.parametrize("objectives", [2, 3])
def test_the_hypervolume_is_that_of_all_trials_so_far(objectives):
    found = report(40, objectives)
    shares = course.hypervolumes(found, found["all"])
    points = np.array([list(row["values"].values()) for row in found["all"]])
    front = np.array([list(row["values"].values()) for row in found["front"]])
    worst = np.maximum(front.max(axis=0), np.median(points, axis=0))
    ideal = points.min(axis=0)
    reference = ideal + 1.1 * (worst - ideal)
    for number in (1, 7, 40):
        whole = compute_hypervolume(np.minimum(points[:number], reference), reference) / np.prod(reference - ideal)
        assert shares[number - 1] == pytest.approx(whole)
    assert shares == sorted(shares)


def test_what_decides_an_objective_matters_most():
    found = report(200, 3)
    shares = importance.shares(found)
    assert max(shares["parameters"], key=shares["parameters"].get) == "dims.width"
    assert sum(shares["parameters"].values()) == pytest.approx(1)
    assert importance.shares(report(9)) == {}


def test_rank_correlation_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    xs, ys = rng.integers(0, 9, 50).astype(float), rng.normal(size=50)
    assert foretold.rank_correlation(xs, ys) == pytest.approx(stats.spearmanr(xs, ys).statistic)


def test_predictions_stand_beside_what_came_of_them():
    text = foretold.drawings(report(50, predicted=True))
    assert "50 trials, rank correlation" in text and "100 % inside" in text
    assert foretold.drawings(report(50)) == ""
