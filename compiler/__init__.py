"""What a spec becomes: modules that train."""

from compiler.flatten import flatten
from compiler.loss import with_loss
from compiler.model import compile
from compiler.weights import load, save

__all__ = ["compile", "flatten", "load", "save", "with_loss"]
