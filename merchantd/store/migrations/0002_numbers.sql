-- What was bound or used up is numbered, so that a copy outside of the database can tell whether the
-- database went back in time (merchantd/trust.py).
ALTER TABLE verdict ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY UNIQUE;
ALTER TABLE lock ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY UNIQUE;
