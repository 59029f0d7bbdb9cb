"""The kinds of content, each with its own way to be present, and right, when it is read."""
