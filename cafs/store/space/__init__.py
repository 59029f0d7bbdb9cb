"""What a store has, what it may have, and what goes when that is too much."""
