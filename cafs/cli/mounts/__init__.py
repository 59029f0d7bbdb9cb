"""The processes of mounts: claimed, started, served, found, reached and ended."""
