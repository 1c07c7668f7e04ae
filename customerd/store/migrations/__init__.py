"""Numbered migrations of the customer daemon's own tables."""
