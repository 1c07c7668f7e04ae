"""What the daemon keeps in PostgreSQL."""
