"""The channel record and its queries."""
