"""Makes spans of content present: one flight per range, deadlines, read-ahead, first passes."""
