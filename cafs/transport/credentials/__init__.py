"""Credentials: where they are found, for how long they hold, and to whom they may be shown."""
