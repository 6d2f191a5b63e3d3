"""What a spec becomes: modules that train."""

from compiler.flatten import flatten
from compiler.model import compile
from compiler.weights import load, save

__all__ = ["compile", "flatten", "load", "save"]
