"""Moves the bytes of one URL; knows no digests. httpx's only door."""
