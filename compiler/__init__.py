"""What a spec becomes: modules that train."""

from compiler.flatten import flatten
from compiler.loss import with_loss
from compiler.model import compile
from compiler.modules.mixture import static_routing
from compiler.weights import load, save

__all__ = ["compile", "flatten", "load", "save", "static_routing", "with_loss"]
