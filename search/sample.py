"""Text from a byte-level language model: one full forward pass a byte."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PROMPT = b"def "


def continue_text(
    model: nn.Module, *, length: int, prompt: bytes = PROMPT, size: int = 240, temperature: float = 0.7, seed: int = 0
) -> str:
    """A prompt and what the model goes on with, as text; bytes that are no UTF-8 are shown as a replacement sign.

    Args:
        model: ``tokens`` ``[1, T]`` to logits ``[1, T, V]``.
        length: the most tokens that the model reads.
        size: bytes to draw.
        temperature: of the softmax that is drawn from; below 1, likely bytes become likelier.
    """
    device = next(model.parameters()).device
    chance = torch.Generator().manual_seed(seed)
    tokens: Tensor = torch.tensor([list(prompt)])
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for _ in range(size):
                logits = model(tokens=tokens[:, -length:].to(device))[0, -1, :256].float().cpu()
                tokens = torch.cat(
                    [tokens, torch.multinomial((logits / temperature).softmax(0), 1, generator=chance)[None]], 1
                )
    finally:
        model.train(training)
    return bytes(tokens[0].tolist()).decode("utf-8", "replace")
