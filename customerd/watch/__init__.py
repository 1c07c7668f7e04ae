"""Watching the chain and acting on what it shows."""
