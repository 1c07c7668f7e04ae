"""The reference merchant."""
