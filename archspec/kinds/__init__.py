"""The built-in kinds, a family a file. Importing this package registers them."""

from archspec.kinds import (  # noqa: F401
    attention,
    channel,
    combinator,
    convolution,
    embedding,
    head,
    interface,
    latent_attention,
    linear,
    mixture,
    norm,
    partition,
    position,
    regularise,
    rope,
    rounds,
    route,
    tokens,
)
