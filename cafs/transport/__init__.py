"""Moves the bytes of one URL; knows no digests. The only door to httpcore and obstore."""
