"""`torch.compile` of each block of a decoder: how many graphs are compiled for 12 layers.

    python -m benchmarks.blocks

Counted by a backend that compiles nothing; blocks that share their code share the compiled graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

import compiler
from archspec import spec
from benchmarks.compile import DECODER
from benchmarks.timing import report

WIDE = "{{kind: transformer_layer, mixer: {{kind: attention, heads: 12}}, channel: {{kind: glu, hidden: 3072}}}}"
UNEVEN = DECODER.replace("body: layer", f"body: layer, overrides: {{{{'11': {WIDE}}}}}")


def compiled_graphs(text: str) -> tuple[int, int]:
    """Distinct blocks of a spec, and graphs that compiling every block compiles."""
    count = 0

    def backend(graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]) -> Callable[..., object]:
        nonlocal count
        count += 1
        return graph.forward

    torch._dynamo.reset()
    model = compiler.compile(spec.loads(text.format(layers=12)))
    blocks = list(model.get_submodule("layers").children())
    for block in blocks:
        block.compile(backend=backend, fullgraph=True)
    model(torch.randint(0, 32000, (1, 16)))
    return len({type(block) for block in blocks}), count


def main() -> None:
    rows = []
    for name, text in (("12 equal layers", DECODER), ("11 equal layers and another", UNEVEN)):
        distinct, graphs = compiled_graphs(text)
        rows.append({"model": name, "distinct blocks": distinct, "compiled graphs": graphs})
    report("blocks", rows)


if __name__ == "__main__":
    main()
