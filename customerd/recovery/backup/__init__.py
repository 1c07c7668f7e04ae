"""What a backup holds, and how it is read from and written to the database."""
