"""PostgreSQL misbehaves under real daemons."""
