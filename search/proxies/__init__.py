"""Zero-cost proxies: figures of an initialised model and at most one batch, without any training.

Which of them rank trained models, and which only count parameters, is measured in ``docs/proxies.md``.
"""

from search.proxies import activations, attention, saliency, zen  # noqa: F401  registers them
