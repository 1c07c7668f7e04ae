-- Tokens: what was handed out, and what was spent with it. No secret of a token is kept here.

create table token (
    token       bytea primary key check (octet_length(token) = 16),
    note        text not null,
    -- The restrictions it was made with; its holder may have added others.
    caveats     text[] not null,
    spends      boolean not null,
    created     timestamptz not null default now(),
    revoked     timestamptz
);

-- One row per spending limit: the token's own, and those that holders added. In the smallest units
-- of the asset.
create table token_spend (
    token       bytea not null references token,
    account     bytea not null check (octet_length(account) = 32),
    spent       numeric(78, 0) not null check (spent >= 0),
    primary key (token, account)
);

-- Which token asked for an operation, and what that took from its limits.
alter table operation add column token bytea references token;
create table token_charge (
    operation   bytea not null references operation,
    account     bytea not null,
    amount      numeric(78, 0) not null check (amount > 0),
    primary key (operation, account)
);

-- Whatever ends an operation without its effect gives back what it took, in the same commit.
create function give_back() returns trigger language plpgsql as $$
begin
    update token_spend set spent = token_spend.spent - charge.amount
    from token_charge charge
    where charge.operation = new.operation and token_spend.token = new.token
      and token_spend.account = charge.account;
    return null;
end
$$;
create trigger operation_gives_back after update of status on operation for each row
    when (new.token is not null and new.status in ('refused', 'cancelled')
          and old.status in ('queued', 'running'))
    execute function give_back();
