"""The covariance of a surrogate: a smooth function of a few columns, and linear effects that other columns modulate.

    k(x, x') = sum_b a_b <L_b, L'_b>  +  a exp(-|S - S'|^2 / 2)  +  exp(-|F - F'|^2 / 2) sum_b c_b <E_b, E'_b>

``L_b`` are blocks of plain linear effects, ``S`` the smooth columns, each over its length, ``E_b`` blocks of effects
whose size depends on the frame ``F``: what a choice of one layer does, in a model of that width. Sums of kernels are
sums of independent functions (Duvenaud et al. 2011, "Additive Gaussian processes", arXiv 1112.4394).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]


class Inputs(NamedTuple):
    """What a kernel sees of candidates; every array has one row for each."""

    linear: tuple[Reals, ...]
    smooth: Reals
    frame: Reals
    effects: tuple[Reals, ...]

    def rows(self, chosen: Sequence[int] | NDArray[np.intp] | slice) -> Inputs:
        return Inputs(
            tuple(block[chosen] for block in self.linear),
            self.smooth[chosen],
            self.frame[chosen],
            tuple(block[chosen] for block in self.effects),
        )

    def __len__(self) -> int:
        return len(self.smooth)


class Kernel:
    """The kernel of some log hyperparameters.

    Attributes:
        theta: log amplitudes of the linear blocks, of the smooth part and of the effects; then log lengths of the
            smooth columns and of the frame's.
    """

    def __init__(self, like: Inputs, theta: Reals) -> None:
        sizes = [len(like.linear), int(like.smooth.shape[1] > 0), len(like.effects)]
        sizes += [like.smooth.shape[1], like.frame.shape[1] if like.effects else 0]
        ends = np.cumsum(sizes)
        self.linear, self.amplitude, self.effects, self.lengths, self.frame = (
            np.exp(part) for part in np.split(theta[: ends[-1]], ends[:-1])
        )

    @staticmethod
    def size(like: Inputs) -> tuple[int, int]:
        """How many amplitudes and how many lengths there are."""
        amplitudes = len(like.linear) + int(like.smooth.shape[1] > 0) + len(like.effects)
        return amplitudes, like.smooth.shape[1] + (like.frame.shape[1] if like.effects else 0)

    def scaled(self, x: Inputs) -> Scaled:
        """Columns multiplied by what the hyperparameters say, so that a covariance is a few products of matrices."""
        count = len(x)
        linear = [np.ones((count, 1)), *(b * np.sqrt(a) for b, a in zip(x.linear, self.linear, strict=True))]
        effects = [b * np.sqrt(a) for b, a in zip(x.effects, self.effects, strict=True)]
        return Scaled(
            np.concatenate(linear, axis=1),
            x.smooth / self.lengths if len(self.amplitude) else None,
            x.frame / self.frame if effects else None,
            np.concatenate(effects, axis=1) if effects else None,
            float(self.amplitude[0]) if len(self.amplitude) else 0.0,
        )


class Scaled(NamedTuple):
    """Candidates as a kernel of known hyperparameters needs them."""

    linear: Reals
    smooth: Reals | None
    frame: Reals | None
    effects: Reals | None
    amplitude: float

    def covariance(self, other: Scaled) -> Reals:
        """``[rows, rows of the other]``."""
        found: Reals = self.linear @ other.linear.T
        if self.smooth is not None:
            assert other.smooth is not None
            found += self.amplitude * _rbf(self.smooth, other.smooth)
        if self.effects is not None:
            assert self.frame is not None and other.frame is not None and other.effects is not None
            found += _rbf(self.frame, other.frame) * (self.effects @ other.effects.T)
        return found

    def variance(self) -> Reals:
        """The diagonal of the covariance with itself."""
        found: Reals = np.einsum("nd,nd->n", self.linear, self.linear) + self.amplitude
        if self.effects is not None:
            found += np.einsum("nd,nd->n", self.effects, self.effects)
        return found


def _rbf(a: Reals, b: Reals) -> Reals:
    squares = np.einsum("nd,nd->n", a, a)[:, None] + np.einsum("nd,nd->n", b, b)[None] - 2 * (a @ b.T)
    np.multiply(np.maximum(squares, 0.0, out=squares), -0.5, out=squares)
    found: Reals = np.exp(squares, out=squares)
    return found


class Gram:
    """Covariances of candidates with themselves and their derivatives, for many hyperparameters.

    A symmetric matrix is the row of its entries on and below the diagonal, its *pairs*. Those of one kind are rows of
    one array, so that sums and derivatives over all of them are single products.

    Attributes:
        first, second: the candidates of each pair.
        own: which pairs are of a candidate with itself.
    """

    def __init__(self, x: Inputs) -> None:
        self.x, self.count = x, len(x)
        self.first, self.second = np.tril_indices(self.count)
        self.own = np.flatnonzero(self.first == self.second)
        self._places = self.second * self.count + self.first  # in memory, column by column as LAPACK has it
        self.linear, self.effects = self._products(x.linear), self._products(x.effects)
        self.smooth, self.frame = self._half_squares(x.smooth), self._half_squares(x.frame)

    def at(self, theta: Reals) -> tuple[Reals, Callable[[Reals], Reals]]:
        """The covariance's pairs, and what turns a derivative by them into one by the log hyperparameters."""
        kernel = Kernel(self.x, theta)
        total = 1.0 + kernel.linear @ self.linear
        if len(kernel.amplitude):
            smooth = kernel.amplitude[0] * np.exp(-(kernel.lengths**-2 @ self.smooth))
            total += smooth
        if len(kernel.effects):
            near = np.exp(-(kernel.frame**-2 @ self.frame))
            effects = kernel.effects @ self.effects
            total += near * effects

        def slope(by: Reals) -> Reals:
            found = [kernel.linear * (self.linear @ by)]
            lengths: list[Reals] = []
            if len(kernel.amplitude):
                through = by * smooth
                found.append(np.array([through.sum()]))
                lengths.append(2 * kernel.lengths**-2 * (self.smooth @ through))
            if len(kernel.effects):
                through = by * near
                found.append(kernel.effects * (self.effects @ through))
                lengths.append(2 * kernel.frame**-2 * (self.frame @ (through * effects)))
            return np.concatenate(found + lengths)

        return total, slope

    def matrix(self, pairs: Reals) -> Reals:
        """The lower triangle ``[n, n]``, zeros above it."""
        found = np.zeros(self.count**2)
        found[self._places] = pairs
        return found.reshape(self.count, self.count).T

    def pairs(self, matrix: Reals) -> Reals:
        """The entries on and below a matrix's diagonal."""
        found: Reals = matrix.T.ravel()[self._places]
        return found

    def _products(self, blocks: Sequence[Reals]) -> Reals:
        found = [self.pairs(block @ block.T) for block in blocks]
        return np.array(found).reshape(len(blocks), len(self.first))

    def _half_squares(self, columns: Reals) -> Reals:
        found: Reals = 0.5 * (columns[self.first] - columns[self.second]).T ** 2
        return np.ascontiguousarray(found)
