"""Mount refs and digests as paths; fetch only the bytes that are read, verified, once."""

__version__ = "0.1.0"
