-- The one escrow that this database, and the key that belongs to it, serve.
CREATE TABLE escrow (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    installation bytea NOT NULL CHECK (octet_length(installation) = 16),
    key_digest bytea CHECK (octet_length(key_digest) = 64),
    chain_id bigint NOT NULL CHECK (chain_id > 0),
    merchant bytea NOT NULL CHECK (octet_length(merchant) = 20),
    token bytea NOT NULL CHECK (octet_length(token) = 20),
    symbol text NOT NULL,
    decimals integer NOT NULL CHECK (decimals BETWEEN 0 AND 77),
    unit numeric(39) NOT NULL CHECK (unit > 0),
    delay bigint NOT NULL CHECK (delay > 0),
    address bytea CHECK (octet_length(address) = 20),
    CHECK (address IS NULL OR key_digest IS NOT NULL)
);

-- An approved proposal that no proof has used. A session ends by the deletion of its row.
CREATE TABLE session (
    id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
    kind text NOT NULL CHECK (kind IN ('establish', 'pay')),
    source text NOT NULL,
    expires timestamptz NOT NULL,
    amount bigint,
    customer bytea CHECK (octet_length(customer) = 20),
    salt bytea CHECK (octet_length(salt) = 32),
    customer_deposit bigint CHECK (customer_deposit > 0),
    merchant_deposit bigint CHECK (merchant_deposit >= 0),
    note text NOT NULL,
    resource text,
    CHECK ((kind = 'pay') = (amount IS NOT NULL)),
    CHECK ((kind = 'establish') = (num_nonnulls(customer, salt, customer_deposit, merchant_deposit) = 4)),
    CHECK ((kind = 'pay') = (num_nonnulls(customer, salt, customer_deposit, merchant_deposit) = 0))
);
CREATE INDEX session_source ON session (source);
CREATE INDEX session_expires ON session (expires);

-- What was said about a proof, for ever. The subject is the channel id or the nonce that the proof
-- is about; a session counts for one verdict only.
CREATE TABLE verdict (
    subject bytea NOT NULL CHECK (octet_length(subject) = 32),
    commitments bytea NOT NULL CHECK (octet_length(commitments) IN (96, 144)),
    session bytea NOT NULL UNIQUE,
    accepted boolean NOT NULL,
    given timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (subject, commitments)
);

CREATE TABLE channel (
    channel bytea PRIMARY KEY,
    commitments bytea NOT NULL,
    session bytea NOT NULL UNIQUE REFERENCES verdict (session),
    customer bytea NOT NULL CHECK (octet_length(customer) = 20),
    salt bytea NOT NULL CHECK (octet_length(salt) = 32),
    customer_deposit bigint NOT NULL CHECK (customer_deposit > 0),
    merchant_deposit bigint NOT NULL CHECK (merchant_deposit >= 0),
    note text NOT NULL,
    closing_answer bytea NOT NULL CHECK (octet_length(closing_answer) = 96),
    token_answer bytea CHECK (octet_length(token_answer) = 96),
    established timestamptz NOT NULL DEFAULT now(),
    activated timestamptz,
    outcome text CHECK (outcome IN ('closed', 'reclaimed')),
    final_customer_balance bigint CHECK (final_customer_balance >= 0),
    final_merchant_balance bigint CHECK (final_merchant_balance >= 0),
    ended timestamptz,
    FOREIGN KEY (channel, commitments) REFERENCES verdict (subject, commitments),
    CHECK (customer_deposit::numeric + merchant_deposit < 9223372036854775808),
    CHECK ((token_answer IS NULL) = (activated IS NULL)),
    CHECK (num_nonnulls(outcome, final_customer_balance, final_merchant_balance, ended) IN (0, 4))
);

CREATE TABLE payment (
    nonce bytea PRIMARY KEY,
    commitments bytea NOT NULL,
    session bytea NOT NULL UNIQUE REFERENCES verdict (session),
    amount bigint NOT NULL,
    note text NOT NULL,
    resource text,
    closing_answer bytea NOT NULL CHECK (octet_length(closing_answer) = 96),
    token_answer bytea CHECK (octet_length(token_answer) = 96),
    service_note text,
    proved timestamptz NOT NULL DEFAULT now(),
    revoked timestamptz,
    FOREIGN KEY (nonce, commitments) REFERENCES verdict (subject, commitments),
    CHECK ((token_answer IS NULL) = (revoked IS NULL)),
    CHECK (service_note IS NULL OR token_answer IS NOT NULL)
);

-- Every lock that can never be paid from again, whatever made it so; rows are never deleted.
CREATE TABLE lock (
    lock bytea PRIMARY KEY CHECK (octet_length(lock) = 32),
    origin text NOT NULL CHECK (origin IN ('revoked', 'closing', 'mutual')),
    nonce bytea UNIQUE REFERENCES payment (nonce),
    secret bytea CHECK (octet_length(secret) = 32),
    channel bytea CHECK (octet_length(channel) = 32),
    customer_balance bigint CHECK (customer_balance >= 0),
    merchant_balance bigint CHECK (merchant_balance >= 0),
    entered timestamptz NOT NULL DEFAULT now(),
    CHECK ((origin = 'revoked') = (nonce IS NOT NULL)),
    CHECK (origin <> 'revoked' OR secret IS NOT NULL),
    CHECK ((origin = 'revoked') = (channel IS NULL)),
    CHECK ((origin = 'mutual') = (num_nonnulls(customer_balance, merchant_balance) = 2))
);

-- The lock of a close enters in the commit in which the close is first seen, at any depth, and
-- stays when a reorganisation takes the close back: the customer can post it again at any time.
CREATE FUNCTION enter_closing_lock() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO lock (lock, origin, channel) VALUES (NEW.topics[3], 'closing', NEW.channel)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
CREATE TRIGGER enter_closing_lock AFTER INSERT ON chain_event
    FOR EACH ROW WHEN (NEW.kind = 'Closing') EXECUTE FUNCTION enter_closing_lock();

-- What the operator asked for; the watcher acts on it as long as the channel is open.
CREATE TABLE expire_request (
    channel bytea PRIMARY KEY REFERENCES channel (channel),
    requested timestamptz NOT NULL DEFAULT now()
);

-- What the approval service still has to be told about its resources.
CREATE TABLE approval_notice (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    resource text NOT NULL,
    success boolean NOT NULL
);
