"""The daemon's process by itself."""
