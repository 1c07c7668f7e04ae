-- What was spent, each thing under a name of its own, so that a repeat counts once. Seconds are those
-- of the signer's clock, which never goes back behind the newest of them.
CREATE TABLE usage (
    kind    TEXT NOT NULL CHECK (kind IN ('payment', 'deposit', 'pull', 'fee', 'defence')),
    subject BLOB NOT NULL,
    asset   BLOB NOT NULL CHECK (length(asset) = 20),
    at      INTEGER NOT NULL,
    amount  BLOB NOT NULL CHECK (length(amount) = 64),
    PRIMARY KEY (kind, subject)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_at ON usage (at);
