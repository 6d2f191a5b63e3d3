"""What a spec becomes: modules that train."""

from compiler.model import compile

__all__ = ["compile"]
