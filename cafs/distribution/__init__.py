"""Turns refs into parts and trees: blob, archive, docker; resolving."""
