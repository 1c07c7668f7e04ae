-- What the signer must never forget, version 1. Addresses, ids and hashes are raw bytes; balances
-- and amounts are in units of the escrow. Nothing here opens a lock or moves money by itself.
CREATE TABLE wallet (
    identity BLOB NOT NULL CHECK (length(identity) = 20)
) STRICT;

CREATE TABLE escrow (
    chain_id   INTEGER NOT NULL CHECK (chain_id > 0),
    escrow     BLOB NOT NULL CHECK (length(escrow) = 20),
    merchant   BLOB NOT NULL CHECK (length(merchant) = 20),
    token      BLOB NOT NULL CHECK (length(token) = 20),
    unit       BLOB NOT NULL CHECK (length(unit) = 32),
    g1_half    BLOB NOT NULL CHECK (length(g1_half) = 240),
    escrow_key BLOB NOT NULL CHECK (length(escrow_key) = 1792),
    PRIMARY KEY (chain_id, escrow)
) STRICT, WITHOUT ROWID;

-- state_* is the step to the newest accepted closing authorization, previous_* the one before it.
CREATE TABLE channel (
    channel            BLOB NOT NULL PRIMARY KEY CHECK (length(channel) = 32),
    chain_id           INTEGER NOT NULL,
    escrow             BLOB NOT NULL,
    salt               BLOB NOT NULL CHECK (length(salt) = 32),
    customer_deposit   INTEGER NOT NULL CHECK (customer_deposit >= 0),
    merchant_deposit   INTEGER NOT NULL CHECK (merchant_deposit >= 0),
    state_index        INTEGER CHECK (state_index >= 0),
    state_attempt      INTEGER CHECK (state_attempt >= 0),
    state_operation    BLOB CHECK (length(state_operation) = 16),
    state_amount       INTEGER,
    customer_balance   INTEGER CHECK (customer_balance >= 0),
    merchant_balance   INTEGER CHECK (merchant_balance >= 0),
    lock               BLOB CHECK (length(lock) = 32),
    signature          BLOB CHECK (length(signature) = 256),
    guard              BLOB CHECK (length(guard) = 20),
    permit             BLOB CHECK (length(permit) = 65),
    previous_attempt   INTEGER CHECK (previous_attempt >= 0),
    previous_operation BLOB CHECK (length(previous_operation) = 16),
    previous_amount    INTEGER,
    completed          INTEGER CHECK (completed BETWEEN 0 AND state_index),
    closing            INTEGER CHECK (closing BETWEEN 0 AND state_index),
    closing_mutual     INTEGER NOT NULL CHECK (closing_mutual IN (0, 1)),
    closing_unilateral INTEGER NOT NULL CHECK (closing_unilateral IN (0, 1)),
    FOREIGN KEY (chain_id, escrow) REFERENCES escrow (chain_id, escrow),
    CHECK (customer_balance + merchant_balance = customer_deposit + merchant_deposit),
    CHECK ((state_index IS NULL) = (signature IS NULL)),
    CHECK ((previous_attempt IS NULL) = (coalesce(state_index, 0) = 0))
) STRICT, WITHOUT ROWID;

-- Proofs that left towards the state after the accepted one.
CREATE TABLE attempt (
    channel   BLOB NOT NULL REFERENCES channel (channel),
    state     INTEGER NOT NULL CHECK (state >= 0),
    attempt   INTEGER NOT NULL CHECK (attempt >= 0),
    operation BLOB NOT NULL CHECK (length(operation) = 16),
    amount    INTEGER NOT NULL,
    PRIMARY KEY (channel, state, attempt)
) STRICT, WITHOUT ROWID;

CREATE INDEX channel_escrow ON channel (chain_id, escrow);

-- A second net under the decisions: what was written is only ever added to.
CREATE TRIGGER channel_goes_forward BEFORE UPDATE ON channel
WHEN (NEW.chain_id, NEW.escrow, NEW.salt, NEW.customer_deposit, NEW.merchant_deposit)
     IS NOT (OLD.chain_id, OLD.escrow, OLD.salt, OLD.customer_deposit, OLD.merchant_deposit)
  OR coalesce(NEW.state_index, -1) < coalesce(OLD.state_index, -1)
  OR (NEW.state_index IS OLD.state_index AND NEW.signature IS NOT OLD.signature)
  OR coalesce(NEW.completed, -1) < coalesce(OLD.completed, -1)
  OR coalesce(NEW.closing, -1) < coalesce(OLD.closing, -1)
BEGIN
    SELECT RAISE(ABORT, 'a record never goes back');
END;

CREATE TRIGGER channel_is_kept BEFORE DELETE ON channel
BEGIN
    SELECT RAISE(ABORT, 'a record is never deleted');
END;
