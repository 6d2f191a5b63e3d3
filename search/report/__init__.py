"""What a study found: as plain data, as text, as a picture and as a page."""

from search.report.files import load, write
from search.report.plain import show, text
from search.report.summary import build, read, read_study

__all__ = ["build", "load", "read", "read_study", "show", "text", "write"]
