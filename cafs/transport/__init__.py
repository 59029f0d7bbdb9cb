"""Moves the bytes of one URL; knows no digests. httpcore's only door."""
