"""A search that learns what to evaluate next; see `search.frontier.frontier`."""

from search.frontier.frontier import Frontier, Problem, batch_size

__all__ = ["Frontier", "Problem", "batch_size"]
