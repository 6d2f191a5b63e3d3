"""Long filters that are the answers of state spaces."""

from archspec.kind import Width
from archspec.kinds.long_convolution import Filter


class DiagonalStateSpace(Filter, kind="diagonal_state_space", role="filter"):
    """What a state space that is the same for all tokens answers: ``f[l] = 2 Re sum_n c_n b_n exp(l dt a_n)``.

    S4 in its diagonal form: Gu et al. 2022, "Efficiently Modeling Long Sequences with Structured State Spaces", arXiv
    2111.00396; Gu et al. 2022, "On the Parameterization and Initialization of Diagonal State Space Models", arXiv
    2206.11893. Each feature has ``state`` complex numbers, one of each conjugate pair, that decay and turn at rates
    ``a``, first ``-1/2 + i pi n``, are written to by ``b = (exp(dt a) - 1) / a`` and read by ``c``, and a step ``dt``.
    """

    state: Width = 32
