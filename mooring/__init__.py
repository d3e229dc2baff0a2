"""The command line, the settings and the composition root: the only package that sees all the others."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mooring")
except PackageNotFoundError:  # run from a tree that was never installed
    __version__ = "0+tree"
