-- Every payment enters a lock, few of them were closed on: the watcher, which looks for those at every
-- block, must not read all payments that were ever made.
CREATE INDEX lock_of_channel ON lock (channel) WHERE channel IS NOT NULL;
