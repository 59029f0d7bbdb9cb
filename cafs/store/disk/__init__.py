"""Files, directories and locks of a store, of which nothing is believed that was not looked at."""
