"""What a model costs: parameters, FLOPs, bytes and latency, read off the operators that it executes."""

from search.cost.price import Cost, price

__all__ = ["Cost", "price"]
