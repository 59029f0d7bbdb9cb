"""Blobs: verified, immutable bytes by digest; the ways in, and the gate they all lead to."""
