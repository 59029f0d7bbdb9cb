"""Trees: what archives hold, as entries; and how a mount shows them."""
