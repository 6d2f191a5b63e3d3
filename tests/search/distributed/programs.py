"""What processes run that ``torchrun`` starts: ``programs.py NAME FOLDER``; the tests run the same functions alone."""

import json
import os
import resource
import signal
import sys
from pathlib import Path

import torch

from archspec import spec
from search.data.digits import Digits
from search.data.text import Text
from search.distributed import joined
from search.fit import fit
from search.recipe import Recipe

LAYER = "{kind: transformer_layer, norm: rms_norm, mixer: {kind: attention, heads: 2}, channel: %s}"
MODEL = """
archspec: 1
name: small
interface: {kind: %s, vocab: 257, length: 64}
graph:
  - {name: table, kind: token_embedding, width: %d}
  - {kind: repeat, times: %d, body: %s}
  - {kind: lm_head, tied: table}
"""
EXPERTS = (
    "{kind: mixture, experts: {count: 4, body: {kind: glu, hidden: 24}}, "
    "router: {kind: top_k, k: 2, balance: %s, z_loss: 0.01}}"
)
MOVING = EXPERTS.replace("k: 2", "k: {bind: step, from: 1, to: 4}, scale: {bind: step, range: [0.5, 2], default: 1}")
IMAGES = """
archspec: 1
name: images
interface: {kind: image_classification, image: [8, 8, 1], classes: 11}
graph: [{kind: patch_embedding, size: 2, width: 10}, learned_position, %s, pool, classifier]
"""
SPECS = {
    "decoder": MODEL % ("causal_lm", 16, 3, LAYER % "{kind: mlp, hidden: 33}"),
    "masked": MODEL % ("masked_lm", 16, 1, LAYER % "{kind: mlp, hidden: 32}"),
    "mixture": MODEL % ("causal_lm", 16, 2, LAYER % EXPERTS % "loss"),
    "moving mixture": MODEL % ("causal_lm", 16, 2, LAYER % MOVING % "loss"),
    "biased mixture": MODEL % ("causal_lm", 16, 2, LAYER % EXPERTS % "bias"),
    "images": IMAGES % (LAYER % "{kind: mlp, hidden: 20}"),
}
LARGE = MODEL % ("causal_lm", 512, 6, LAYER % "{kind: mlp, hidden: 2048}")
RECIPE = Recipe(steps=8, batch=4, accumulate=2, length=16, evaluate_every=4, validation_batches=3)


def trained(text, folder, group, recipe=RECIPE, **options):
    """A run in a folder, which may be one that goes on."""
    small = spec.loads(text)
    images = small.interface.name_ == "image_classification"
    data = (Digits() if images else Text(path=__file__)).open(small.interface)
    if group is not None:
        group.settled(small, recipe)
    return fit(small, data, recipe, folder, group=group, **options)


def every(folder, group):
    """Each spec, and one that is paused."""
    for name, text in SPECS.items():
        trained(text, folder / name, group)
    trained(SPECS["decoder"], folder / "paused", group, until=4)


def goes_on(folder, group):
    trained(SPECS["decoder"], folder, group)


def killed(folder, group):
    """A process that is killed once on the way; what started it starts all anew."""

    def progress(step, of, loss):
        if group.rank == 0:
            with (folder / "steps").open("a") as file:
                file.write(f"{step}\n")
        if step == 5 and group.rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)

    trained(SPECS["decoder"], folder, group, progress=progress, save_seconds=0)


def memory(folder, group):
    """Bytes that training takes at most, beside what was there before."""
    trained(SPECS["decoder"], folder / "small", group)  # what is imported and set up on the way does not count
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trained(LARGE, folder / "large", group, Recipe(steps=2, batch=2, length=8, validation_batches=1))
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    (folder / f"memory{group.rank if group else ''}.json").write_text(json.dumps(taken * 1024))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined() as found:
        globals()[sys.argv[1]](Path(sys.argv[2]), found)
