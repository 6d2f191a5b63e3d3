"""Long filters that are the answers of state spaces (schema in archspec.kinds.diagonal_state_space)."""

from __future__ import annotations

from math import isqrt, log, pi, sqrt

import torch
from torch import Tensor, nn

from archspec.kinds import diagonal_state_space as kinds
from compiler.build import Make, weight
from compiler.modules.recurrence import precise, spread
from compiler.registry import builds


@builds(kinds.DiagonalStateSpace)
class DiagonalStateSpace(nn.Module):
    """``log_decay``, ``turn`` and the parts of ``c`` are ``[width, state]``; ``log_step`` is ``[width, 1]``."""

    def __init__(self, spec: kinds.DiagonalStateSpace, make: Make) -> None:
        super().__init__()
        width, state = make.stream.width, spec.state
        self.log_decay, self.turn, self.log_step = weight(width, state), weight(width, state), weight(width, 1)
        self.c_real, self.c_imaginary = weight(width, state), weight(width, state)
        self.initial = {
            "log_decay": log(0.5),
            "turn": [pi * number for number in range(state)],
            "log_step": [[step] for step in spread(width, log(0.001), log(0.1))],
            "c_real": ("normal", sqrt(0.5)),
            "c_imaginary": ("normal", sqrt(0.5)),
        }

    def forward(self, count: int) -> Tensor:
        a = torch.complex(-precise(self.log_decay).exp(), precise(self.turn))
        rate = a * precise(self.log_step).exp()
        c = torch.complex(precise(self.c_real), precise(self.c_imaginary)) * (torch.exp(rate) - 1) / a
        size = max(1, isqrt(count))  # a power is a coarse one times a fine one, and few of each are made
        coarse, fine = (torch.arange(n, device=a.device)[:, None, None] for n in (-(-count // size), size))
        left, right = c * torch.exp(size * coarse * rate), torch.exp(fine * rate)  # [places, width, state]
        answers = 2 * (left.transpose(0, 1) @ right.permute(1, 2, 0)).real
        return answers.flatten(1)[:, :count].T
