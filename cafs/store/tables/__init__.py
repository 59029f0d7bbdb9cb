"""The tables of a store's index: records, their keys, and the rules that hold between them."""
