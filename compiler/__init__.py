"""What a spec becomes: modules that train."""

from compiler.adopt import adopt
from compiler.checkpoint import Checkpoint, export_checkpoint, import_checkpoint
from compiler.decoding import Decoding
from compiler.ensemble import ensemble
from compiler.factorize import factorize
from compiler.flatten import flatten
from compiler.fold import fold
from compiler.generate import generate, stream
from compiler.grow import grow
from compiler.inference import pack, quantize
from compiler.loss import with_loss
from compiler.model import compile
from compiler.modules.mixture import static_routing
from compiler.moving import settle
from compiler.upcycle import upcycle
from compiler.weights import load, save

__all__ = [
    "Checkpoint",
    "Decoding",
    "adopt",
    "compile",
    "ensemble",
    "export_checkpoint",
    "factorize",
    "flatten",
    "fold",
    "generate",
    "grow",
    "import_checkpoint",
    "load",
    "pack",
    "quantize",
    "save",
    "settle",
    "static_routing",
    "stream",
    "upcycle",
    "with_loss",
]
