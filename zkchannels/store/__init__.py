"""PostgreSQL through psycopg: connections, transactions, migrations."""
