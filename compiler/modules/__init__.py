"""The computation of the built-in kinds, a family a file, named as in `archspec.kinds`. Importing it registers all."""

from importlib import import_module
from pkgutil import iter_modules

for _file in iter_modules(__path__):
    import_module(f"{__name__}.{_file.name}")
