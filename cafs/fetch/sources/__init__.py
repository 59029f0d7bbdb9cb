"""Where bytes come from, how fast, how many at once, and within which budget."""
