"""The merchant's durable records: PostgreSQL tables and the statements on them."""
