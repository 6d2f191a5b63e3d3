"""The computation of the built-in kinds, a family a file, named as in `archspec.kinds`."""

from compiler.modules import (  # noqa: F401
    attention,
    block_diagonal,
    channel,
    combinator,
    convolution,
    dynamic_convolution,
    embedding,
    fourier,
    head,
    latent_attention,
    linear,
    mixture,
    norm,
    partition,
    position,
    regularise,
    relative,
    rounds,
    route,
    tokens,
)
