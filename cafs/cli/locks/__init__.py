"""What ``cafs lock`` does: makes, checks, compares and tells entries of a lock."""
