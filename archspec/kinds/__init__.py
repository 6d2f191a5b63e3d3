"""The built-in kinds, a family a file. `archspec.kind.REGISTRY` imports a file when one of its kinds is asked for."""
