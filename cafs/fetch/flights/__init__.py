"""Flights: how missing bytes come: asked for, received, deposited, checked, shared."""
