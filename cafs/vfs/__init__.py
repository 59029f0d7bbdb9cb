"""The file system in neutral words: namespace, nodes, attributes, reading. No pyfuse3, no errno."""
