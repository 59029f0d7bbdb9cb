"""First passes: what an archive goes through once, so that it can be read as a tree."""
