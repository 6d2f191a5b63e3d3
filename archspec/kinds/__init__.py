"""The built-in kinds, a family a file. Importing this package registers them."""

from archspec.kinds import (  # noqa: F401
    attention,
    block_diagonal,
    channel,
    combinator,
    convolution,
    dynamic_convolution,
    embedding,
    fourier,
    head,
    interface,
    latent_attention,
    linear,
    mixture,
    norm,
    partition,
    position,
    regularise,
    rounds,
    route,
    tokens,
)
