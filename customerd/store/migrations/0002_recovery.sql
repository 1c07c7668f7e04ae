-- Recovery: channels that came back from a backup or from the chain, operations that wait for a word.

alter table operation drop constraint operation_kind_check;
alter table operation add check (kind in ('establish', 'pay', 'refund', 'close', 'recover'));
create unique index operation_recover on operation (channel)
    where kind = 'recover' and status in ('queued', 'running');

-- After a database went back in time, what was queued waits until the user lets it go on: it may
-- have been cancelled or done since.
alter table operation add column held boolean not null default false;

-- Taken from a backup or found on the chain: signer and database may both be old, and nobody but
-- the merchant can say which state is the newest. Never taken back.
alter table channel add column restored boolean not null default false;
alter table channel add check (doubtful or not restored);
