"""What makes scores of queries and keys: maps of both to features whose product is the score.

Because the score stays a product, everything else of attention stays as it is: positions that turn what is mapped,
grouped heads, windows, masks, kept keys, fused kernels.
"""

from archspec.errors import Refused
from archspec.kind import Kind
from archspec.streams import Stream


class Paired(Kind):
    """A map of complex features: two features of a head are one, as rotary positions turn them together."""

    incremental = True

    def output(self, x: Stream) -> Stream:
        """Accepts a stream of queries, whose width is that of a head."""
        if x.width % 2:
            raise Refused("", f"{x.width} features of a head are no pairs", "an even head_width")
        return x


class Collinear(Paired, kind="collinear", role="score"):
    """Keys on the line of each query: ``key = query * relu(t)``, where the pairs of t have one number each.

    Before positions every angle between a query and a key is zero, so that a rotary score
    ``sum_j |q_j|^2 t_j cos((m - n) theta_j)`` starts at its largest. That is a product again, of ``(|q|^2, 0)`` and
    ``(t, 0)``, and no tensor of three indices is made. Zhu et al. 2023, "CoCA: Fusing Position Embedding with Collinear
    Constrained Attention", arXiv 2309.08646.
    """


class Polar(Paired, kind="polar", role="score"):
    """Magnitudes and a phase that each head makes of the angle between query and key in its own way.

    ``sum_j |q_j| |k_j| cos(gain_j (angle(q_j) - angle(k_j)) + shift_j + what rotary positions add)``, with a gain for
    each feature of a key head and a shift for each of a query head. A gain of one and a shift of zero is the plain
    product. Shao et al. 2025, "ComplexFormer", arXiv 2505.10222.
    """
