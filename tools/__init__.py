"""What developers run: locks, environments, and generators of committed files."""
