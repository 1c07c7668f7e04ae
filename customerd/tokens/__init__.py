"""Tokens: what others than the owner may do, and what they did."""
