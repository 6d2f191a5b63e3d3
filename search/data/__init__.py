"""Data sets that a study trains on; importing this registers the built-in kinds."""

from search.data import compression, copying, digits, memorisation, recall, text  # noqa: F401
