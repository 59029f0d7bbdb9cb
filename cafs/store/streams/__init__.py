"""Streams: bytes that are filled by span, and read where they are filled."""
