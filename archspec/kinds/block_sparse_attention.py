"""Block-sparse attention: blocks of tokens read their neighbours, the ends, and a few blocks at random."""

from typing import Annotated, Literal

from pydantic import Field

from archspec.kind import Count, Free, Rate, Width
from archspec.kinds.heads import Heads


class BlockSparseAttention(Heads, kind="block_sparse_attention", role=("mixer", "body")):
    """Multi-head attention of each block to itself and its neighbours, the first and last block, and ``random`` others.

    Zaheer et al. 2020, "Big Bird: Transformers for Longer Sequences", arXiv 2007.14062. The first and the last block
    read everything. So does every block of a sequence of no more than ``5 + 2 random`` blocks. Which blocks a head
    reads at random follows from ``seed`` alone; ``evaluation: first`` draws them in training only, and after it reads
    the first block once more for each, as published checkpoints are run.
    """

    block: Width = Field(64, description="tokens of a block")
    random: Annotated[int, Field(ge=0, le=1024)] = Field(3, description="blocks that a block reads at random")
    seed: Annotated[Count, Free()] = Field(0, description="decides the random blocks")
    evaluation: Literal["drawn", "first"] = Field("drawn", description="what stands for random blocks outside training")
    dropout: Annotated[Rate, Free()] = Field(0.0, description="on the attention weights")
