"""LMDB, with checked records and shared commits. lmdb's only door."""
