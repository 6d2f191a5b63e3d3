"""The language: what can be said in a spec. Imports no torch."""
