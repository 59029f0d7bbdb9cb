"""Formats as pure, synchronous code: tar, zip, compression, sniffing. zstandard's only door."""
