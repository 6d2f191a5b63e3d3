"""Which of some candidates to evaluate: expected improvement of the hypervolume, in worlds drawn from the surrogates.

A world is one joint draw of what was evaluated, what is being evaluated and what may be. Improvements are measured
against the noiseless values that observed points have in the same world (Daulton et al. 2021, "Parallel Bayesian
optimization of multiple noisy objectives with expected hypervolume improvement", arXiv 2105.08195). A batch is built
one by one inside the same worlds, each choice added to the front of every world.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.frontier.hypervolume import Improvements

Reals = NDArray[np.float64]


def batch(known: Reals, candidates: Reals, reference: Reals, count: int) -> list[int]:
    """Candidates in the order in which they were taken; fewer than ``count`` when the others add nothing in any world.

    Args:
        known: ``[worlds, n, objectives]``, minimised.
        candidates: ``[worlds, m, objectives]``.
        reference: ``[objectives]``, up to where the hypervolume counts.
    """
    improvements = Improvements(known, candidates, reference)
    taken: list[int] = []
    while len(taken) < min(count, candidates.shape[1]):
        expected = improvements.of_each().mean(axis=0)
        expected[taken] = 0.0
        best = int(expected.argmax())
        if expected[best] <= 0.0:
            break
        taken.append(best)
        improvements.add(best)
    return taken
