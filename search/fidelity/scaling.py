"""Learning rate and batch by the step law, so that candidates are ranked by architecture and not by learning rate.

Li et al. 2025, "Predictable Scale: Part I, Step Law", arXiv 2503.04715: ``rate = 1.79 N^-0.713 D^0.307``, and in tokens
``batch = 0.58 D^0.571``. N counts the weights of the layers: no embedding, no head; of mixtures all experts. D are the
tokens of the whole training. By the tables of its repository, ``github.com/step-law/steplaw``, it was fitted on 2.1e8
to 2.2e9 weights and 2e9 to 1e11 tokens, and the rates that were best lay between 9.8e-4 and 7.8e-3.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from archspec.errors import Problem, SpecError
from archspec.spec import Spec
from search.cost.price import price
from search.kinds import Fields

LOWEST_TRIED, HIGHEST_BEST = 2**-12, 2**-7  # learning rates of the law's grid
LARGEST_TRIED = 2**22  # tokens of a batch
TABLES = {"token_embedding", "label_embedding", "learned_position", "lm_head"}


class RateLaw(Fields):
    """The learning rate of the step law.

    Example:
        train: {steps: 600, batch: 16, learning_rate: {kind: step_law, times: 0.5}}
    """

    kind: Literal["step_law"] = "step_law"
    times: float = Field(1.0, gt=0, description="the law's rate is multiplied by it")
    at_least: float = Field(LOWEST_TRIED, gt=0, description="by default the lowest rate that its authors tried")
    at_most: float = Field(
        HIGHEST_BEST, gt=0, description="by default the highest that was best for any of its authors' models"
    )

    def rate(self, parameters: int, tokens: int) -> float:
        """The highest learning rate of a training run, bounded before it is multiplied."""
        law = 1.79 * parameters**-0.713 * tokens**0.307
        return self.times * min(max(law, self.at_least), self.at_most)


class BatchLaw(Fields):
    """The batch of the step law, as tokens of an optimizer step.

    The law tells the batch for a number of tokens. A recipe has steps: the batch solves ``B = 0.58 (steps B)^0.571``.

    Example:
        train: {steps: 600, batch: step_law, learning_rate: step_law}
    """

    kind: Literal["step_law"] = "step_law"
    times: float = Field(1.0, gt=0, description="the law's batch is multiplied by it")
    at_most: int = Field(LARGEST_TRIED, gt=0, description="tokens; by default the most that its authors tried")

    def tokens(self, steps: int) -> float:
        """Tokens of an optimizer step."""
        return self.times * min((0.58 * steps**0.571) ** (1 / (1 - 0.571)), self.at_most)


def parameters(spec: Spec) -> int:
    """The law's N: all weights but those of embeddings and heads, tied or not."""
    cost = price(spec)
    return cost.parameters - sum(row.parameters for row in cost.rows if row.kind in TABLES)


def length(spec: Spec, asked: int | None) -> int:
    """Tokens that a sequence of a recipe teaches.

    Errors:
        SpecError: the model reads no tokens, so that no law for them can hold.
    """
    longest = getattr(spec.interface, "length", None)
    if longest is None or spec.interface.name_ == "sequence_classification":
        cause = f"the step law counts tokens that are learned; {spec.interface.name_} has none"
        raise SpecError(Problem(cause, "give learning_rate and batch as numbers", "train"))
    return int(asked or longest)
