"""Routers: which experts of a mixture a token meets, and what each of them weighs."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.graph import Node
from archspec.kind import Free, Kind, Moves, Rate, Real, Width
from archspec.moving import most
from archspec.place import Place
from archspec.streams import Stream

BALANCE = "factor on the load-balancing loss"
Z_LOSS = "factor on the squared log-partition of the scores"


class Scored(Kind):
    """A router that scores every expert by ``w x`` and sends each token to k of them."""

    incremental = True
    rare: ClassVar[tuple[str, ...]] = ("bias", "jitter")
    k: Annotated[Width, Moves()] = 2
    bias: bool = Field(False, description="a bias on the scores")
    jitter: Annotated[Rate, Free(), Moves()] = Field(
        0.0, description="in training, what the router reads is multiplied by uniform noise in 1 - jitter to 1 + jitter"
    )

    @property
    def loses(self) -> bool:
        """Whether it adds a loss in training."""
        raise NotImplementedError

    def infer(self, at: Place) -> Stream:
        experts: int = at.scope["experts"]
        if most(self.k) > experts:
            raise Refused("k", f"{most(self.k)} of {experts} experts", f"at most {experts}")
        return at.one().wide(experts)


class TopK(Scored, kind="top_k", role="router"):
    """Each token goes to the k experts with the highest scores, and adds up what they say by their scores.

    Shazeer et al. 2017, "Outrageously Large Neural Networks", arXiv 1701.06538; groups of experts, each as good as its
    best one: DeepSeek-AI 2024, "DeepSeek-V2", arXiv 2405.04434; as its best two, sigmoid scores and balancing by a
    bias: DeepSeek-AI 2024, "DeepSeek-V3", arXiv 2412.19437. ``balance: loss`` adds the loss of Fedus et al. 2021,
    "Switch Transformers", arXiv 2101.03961; ``z_loss`` that of Zoph et al. 2022, "ST-MoE", arXiv 2202.08906. The
    softmax over the chosen scores alone is the softmax over all, normalised.

    A ``temperature`` that falls while the model trains, with ``noise``, a ``threshold`` and all experts for k, is the
    dense-to-sparse gate of Nie et al. 2021, "EvoMoE", arXiv 2112.14397; a k that grows is Chen et al. 2023, "Sparse MoE
    as the New Dropout", arXiv 2303.01610.
    """

    exempt = {
        "causality": "with a capacity, a later token's first choice may take the room of an earlier one's second",
        "batch": "with a capacity, samples share the room of each expert",
    }

    rare: ClassVar[tuple[str, ...]] = (
        *Scored.rare,
        "order",
        "group_score",
        "room",
        "temperature",
        "noise",
        "threshold",
    )

    @property
    def apart(self) -> bool:  # type: ignore[override]
        return self.capacity is None

    @property
    def incremental(self) -> bool:  # type: ignore[override]
        return self.capacity is None

    score: Literal["softmax", "sigmoid"] = "softmax"
    normalize: bool | None = Field(
        None, description="the k scores are divided by their norm; by default where k is more than one"
    )
    order: Annotated[Real, Field(gt=0)] = Field(1.0, description="order of that norm; 1 divides by the sum")
    groups: Width = Field(1, description="groups of experts, of which only the best are looked into")
    top_groups: Width = Field(1, description="how many groups are looked into")
    group_score: Literal["best_two", "best"] = Field(
        "best_two", description="a group is as good as its two best experts together, or as its best one"
    )
    scale: Annotated[Real, Moves()] = Field(1.0, description="factor on the weights")
    temperature: Annotated[Real, Moves(), Field(gt=0)] = Field(1.0, description="what the logits are divided by")
    noise: Annotated[Real, Free(), Moves(), Field(ge=0)] = Field(
        0.0, description="factor on Gumbel noise that is added to the logits in training"
    )
    threshold: Annotated[Rate, Moves()] = Field(
        0.0, description="experts whose score is not above it are left out, so that a token may meet fewer than k"
    )
    balance: Literal["none", "loss", "bias"] = "loss"
    balance_weight: Annotated[Real, Free(), Moves()] = Field(0.01, description=BALANCE)
    balance_rate: Annotated[Real, Free()] = Field(0.001, description="how fast the balancing bias moves in a step")
    z_loss: Annotated[Real, Free(), Moves()] = Field(0.0, description=Z_LOSS)
    capacity: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="an expert takes at most this many times its even share; others are dropped. Dropless by default",
    )
    room: Width | None = Field(
        None, description="an expert takes at most this many tokens of a sequence, the first ones; others are dropped"
    )

    @property
    def loses(self) -> bool:
        return bool(self.z_loss) or self.balance == "loss"

    @property
    def normalizes(self) -> bool:
        return self.k > 1 if self.normalize is None else self.normalize

    def settle(self, node: Node) -> dict[str, Any]:
        return {"normalize": self.normalizes}

    def infer(self, at: Place) -> Stream:
        scores = super().infer(at)
        experts = scores.width
        if experts % self.groups:
            raise Refused("groups", f"{experts} experts do not divide into {self.groups} groups", divisors(experts))
        if self.top_groups > self.groups or most(self.k) > experts // self.groups * self.top_groups:
            raise Refused(
                "top_groups", f"{self.top_groups} of {self.groups} groups hold too few experts for k {most(self.k)}"
            )
        if self.room is not None and self.capacity is not None:
            raise Refused("room", "either room in a sequence or capacity in a batch", "capacity: null")
        return scores


class SparseMixer(Scored, kind="sparse_mixer", role="router"):
    """k experts are chosen one after the other; each weighs its share among the scores that come close to its own.

    Of scores ``s`` of which the best left is ``m``, those are close with ``(m - s) / max(|s|, m) <= 2 tolerance``; the
    weight is the softmax over the close ones. In training an expert is drawn from them (``noise``), and the gradient is
    that of Heun's third-order rule: the weight of an expert that is not the best counts a third, but for every fourth.

    Liu et al. 2024, "GRIN: Gradient-Informed MoE", arXiv 2409.12136; Liu et al. 2023, "Sparse Backpropagation for MoE
    Training", arXiv 2310.00811.
    """

    tolerance: Annotated[Real, Field(ge=0)] = 0.01
    noise: Annotated[Real, Free(), Moves(), Field(ge=0)] = Field(
        1.0, description="factor on the Gumbel noise with which experts are drawn in training; 0 takes the best"
    )
    balance: Literal["none", "loss"] = "loss"
    balance_weight: Annotated[Real, Free(), Moves()] = Field(0.01, description=BALANCE)
    z_loss: Annotated[Real, Free(), Moves()] = Field(0.0, description=Z_LOSS)

    @property
    def loses(self) -> bool:
        return bool(self.z_loss) or self.balance == "loss"


class ByLabelRouter(Kind, kind="label_router", role="router"):
    """A token goes to the expert of its label."""

    incremental = True
    label: str

    def infer(self, at: Place) -> Stream:
        count = dict(at.one().labels).get(self.label)
        if count is None:
            raise Refused("label", f"tokens carry no label {self.label!r}", [name for name, _ in at.one().labels])
        if count > at.scope["experts"]:
            raise Refused("label", f"{count} labels for {at.scope['experts']} experts")
        return at.one().wide(at.scope["experts"])
