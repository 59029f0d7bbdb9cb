"""Opening a store, putting it in order, checking it, and mending it."""
