"""Surrogates of a paid objective, and the choice among them by what they foretell of the points left out.

`structured` is smooth in costs, totals and the choices made once, and gives each choice of each round an effect that
depends on the choices made once; `quadratic` is a polynomial of totals and those choices; `parameters` knows nothing
but the number of parameters, which is what a surrogate has to beat among candidates of equal cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from search.frontier.features import Features
from search.frontier.gaussian_process import Posterior, fit
from search.frontier.kernels import Inputs

Reals = NDArray[np.float64]

NEAR = 0.25  # rounds whose effects are alike, as a share of all
STRATUM = 8  # points of equal cost
FAR = 10.0  # of the distance from the best target to the median, beyond the median
WIDE = 24  # columns of which a quadratic has at most as many


def structured(f: Features) -> Inputs:
    smooth = np.concatenate([f.costs, f.totals, f.once], axis=1)
    effects = []
    for part in f.rounds:
        count = part.shape[2]
        place = np.arange(count) / max(NEAR * count, 1.0)
        root = np.linalg.cholesky(np.exp(-0.5 * (place[:, None] - place[None]) ** 2) + 1e-6 * np.eye(count))
        effects += [_flat(part @ root / np.sqrt(count)), _flat(part / np.sqrt(count))]
    return Inputs((_even(smooth),), smooth, f.once, tuple(effects))


def quadratic(f: Features) -> Inputs:
    base = np.concatenate([f.totals, f.once], axis=1)
    first, second = np.triu_indices(min(base.shape[1], WIDE))
    return Inputs((_even(base), _even(base[:, first] * base[:, second])), base[:, :0], base[:, :0], ())


def parameters(f: Features) -> Inputs:
    return Inputs((f.size,), f.size, f.size[:, :0], ())


FORMS = {"structured": structured, "quadratic": quadratic, "parameters": parameters}


@dataclass(frozen=True)
class Surrogate:
    """The chosen surrogate of one objective.

    Attributes:
        form: one of `FORMS`.
        logarithmic: whether the logarithm of the objective is what is modelled.
        report: ``form``; mean log density of the points left out, by form; rank correlation (Spearman) of what is
            foretold of the points left out, within strata of equal cost: ``rank`` of the chosen form and
            ``rank_of_parameters`` of a ranking by parameters alone (None where it is not known); ``noise``, the
            standard deviation of an observation in the units of what is modelled.
    """

    form: str
    posterior: Posterior
    logarithmic: bool
    report: dict[str, Any]

    def inputs(self, features: Features) -> Inputs:
        return FORMS[self.form](features)

    def bound(self, features: Features, deviations: float) -> Reals:
        """The mean less some standard deviations, in the units of what is modelled."""
        mean, deviation = self.posterior.marginal(self.inputs(features))
        return mean - deviations * deviation

    def interval(self, features: Features, level: float = 0.9) -> Reals:
        """What an observation will be, ``[n, 3]`` in the objective's units: the middle, and the ends of an interval."""
        mean, deviation = self.posterior.marginal(self.inputs(features))
        away = float(ndtri((1 + level) / 2)) * np.hypot(deviation, self.posterior.noise)
        return self.back(np.column_stack([mean, mean - away, mean + away]))

    def draws(self, features: Features, normal: Reals) -> Reals:
        """Functions drawn jointly, ``[draws, n]``, in the objective's units."""
        return self.back(self.posterior.draws(self.inputs(features), normal))

    def back(self, modelled: Reals) -> Reals:
        return np.exp(modelled) if self.logarithmic else modelled


def choose(features: Features, targets: Reals, costs: Reals | None) -> Surrogate:
    """The surrogate that foretells the points left out best; "parameters" where it ranks them no better than those.

    Args:
        targets: ``[n]``, finite. Positive ones are modelled in their logarithm, and those that are far worse than the
            others (a training that diverged) as if they were nearer.
        costs: what candidates are compared at equal values of; None: among all.
    """
    logarithmic = bool((targets > 0).all())
    modelled = np.log(targets) if logarithmic else targets
    middle = float(np.median(modelled))
    modelled = np.minimum(modelled, middle + FAR * (middle - modelled.min()))
    known = features.size.shape[1] > 0
    fitted = {form: fit(of(features), modelled) for form, of in FORMS.items() if known or form != "parameters"}
    form = max(fitted, key=lambda one: fitted[one].density)
    strata = strata_of(costs, len(targets))
    rank = rank_within(fitted[form].left_out[:, 0], modelled, strata)
    alone = rank_within(-features.size[:, 0], modelled, strata) if known else None
    if alone is not None and len(targets) >= 2 * STRATUM and rank <= alone:
        form = "parameters"
    report = {
        "form": form,
        "density": {one: posterior.density for one, posterior in fitted.items()},
        "rank": rank,
        "rank_of_parameters": alone,
        "noise": fitted[form].noise,
    }
    return Surrogate(form, fitted[form], logarithmic, report)


def strata_of(costs: Reals | None, count: int) -> NDArray[np.intp]:
    """Which stratum each point is in: about `STRATUM` points whose costs are neighbours."""
    order = np.argsort(np.argsort(costs, kind="stable"), kind="stable") if costs is not None else np.zeros(count)
    return np.asarray(order * max(count // STRATUM, 1) // max(count, 1), dtype=np.intp)


def rank_within(a: Reals, b: Reals, strata: NDArray[np.intp]) -> float:
    """Mean over strata of Spearman's correlation, 0 where a side is constant."""
    from scipy.stats import rankdata  # its import takes most of a second, which other samplers save

    found = []
    for stratum in np.unique(strata):
        mine = strata == stratum
        if mine.sum() > 2:
            first, second = (rankdata(side[mine]) - (mine.sum() + 1) / 2 for side in (a, b))
            size = float(np.sqrt((first @ first) * (second @ second)))
            found.append(float(first @ second) / size if size else 0.0)
    return float(np.mean(found)) if found else 0.0


def _even(columns: Reals) -> Reals:
    found: Reals = columns / np.sqrt(max(columns.shape[1], 1))
    return found


def _flat(part: Reals) -> Reals:
    return part.reshape(len(part), -1)
