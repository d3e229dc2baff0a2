"""Protocols in, readings out: links, decoding, journal, stores and the live bus. Knows no fleet."""
