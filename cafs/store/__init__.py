"""The local digest store: blobs, streams, trees, refs, documents, mounts. lmdb's only door."""
