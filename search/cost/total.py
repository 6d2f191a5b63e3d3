"""Pieces of a chain added up in their order (`search.cost.pieces`)."""

from __future__ import annotations

from collections.abc import Mapping

from search.cost.passes import PassTime, seconds
from search.cost.pieces import Piece
from search.cost.price import Cost
from search.cost.setting import DTYPES, Setting
from search.cost.update import STATES, update_peak


class Total:
    """What the pieces so far cost together.

    Attributes:
        kept: bytes that autograd keeps.
        training, backward, since: peaks of the forward pass, of the backward pass, and of that up to the last
            embedding, its own with the gradient of its table beside it. Backward, gradients of later weights are
            there: the peaks are less those of the weights so far, to which in the end those of all weights are added.
        widest: bytes of the largest weight.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.parameters = self.active = self.stored = self.resident = self.forward = self.step = self.cache = 0
        self.kept = self.inference = self.training = self.backward = self.since = self.table = self.widest = 0
        self.inputs = self.targets = self.loss = 0
        self.busy, self.host = [0] * len(setting.device.working_sets), 0
        self.buffers: dict[str, int] = {}
        self.unpriced: set[str] = set()

    def add(self, piece: Piece) -> None:
        """Adds the next piece."""
        self.parameters += piece.parameters
        self.active += piece.active
        self.stored += piece.stored
        self.resident += piece.resident
        self.forward += piece.forward
        self.step += piece.step
        self.cache += piece.cache
        self.inputs += piece.inputs
        self.targets += piece.targets
        self.loss += piece.loss
        for number, femtoseconds in enumerate(piece.busy):
            self.busy[number] += femtoseconds
        self.host += piece.host
        self.inference = max(self.inference, piece.inference_peak)
        before = self.kept - self.parameters * self.setting.dtype.itemsize
        backward = before + piece.backward_peak
        self.training = max(self.training, self.kept + piece.forward_peak)
        self.backward = max(self.backward, backward)
        if piece.tied_peak >= 0:
            self.backward = max(self.backward, self.table + max(self.since, before + piece.tied_peak))
        self.widest = max(self.widest, piece.widest)
        if piece.table:
            self.table, self.since = piece.table, backward + piece.widest
        else:
            self.since = max(self.since, backward)
        self.kept += piece.kept
        if piece.buffers:
            self.buffers.update(piece.buffers)
        if piece.unpriced:
            self.unpriced |= piece.unpriced

    def cost(self, batch: int, lengths: Mapping[str, int], dtype: str) -> Cost:
        """The cost of a model of these pieces."""
        size = DTYPES[dtype].itemsize
        weights = self.parameters * size + self.stored
        held = weights + sum(self.buffers.values()) + self.inputs
        backward = self.parameters * size + self.backward
        update = update_peak(self.parameters, self.widest, size)
        time = PassTime(tuple(self.busy), self.host, self.resident)
        return Cost(
            parameters=self.parameters,
            active=self.active,
            forward=self.forward,
            training_step=self.step,
            weights=weights,
            peak_inference=held + self.inference,
            peak_training=held + self.targets + self.parameters * STATES + max(self.training, backward, update),
            loss=self.loss,
            cache_per_token=self.cache * size,
            latency_ms=1e3 * seconds(time, self.setting),
            batch=batch,
            lengths=lengths,
            dtype=dtype,
            device=self.setting.name,
            phase=self.setting.phase,
            context=self.setting.context,
            unpriced=tuple(sorted(self.unpriced)),
        )
