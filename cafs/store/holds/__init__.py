"""Who is using what, in all processes: what is held, leased, or waited for is let be."""
