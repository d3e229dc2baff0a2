"""The broker as a program of its own: `python -m broker`. Nothing else of the package needs this part."""
