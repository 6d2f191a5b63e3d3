"""Data sets that a study trains on."""
