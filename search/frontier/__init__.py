"""A search that learns what to evaluate next; see `search.frontier.frontier`."""

from search.frontier.frontier import Frontier, Problem, batch_begin, batch_size
from search.frontier.members import Members
from search.frontier.sampler import FrontierSampler

__all__ = ["Frontier", "FrontierSampler", "Members", "Problem", "batch_begin", "batch_size"]
