"""The shipped test kit: an HTTP origin with faults, archive and image makers."""
