"""What can go wrong with the database, apart from the server's own errors (psycopg.errors)."""

from __future__ import annotations


class StoreError(Exception):
    """Base of all errors of this package."""


class DatabaseUnavailable(StoreError):
    """The database does not answer, or cannot do any work now; nothing was changed. Try later."""


class CommitOutcomeUnknown(DatabaseUnavailable):
    """The connection was lost while the server committed: the change may be there or not.

    The only one of its kind that may have changed something. Read back, by the operation's own
    unique key, whether it is there; never assume either. Calls after this one fail with
    DatabaseUnavailable until the server has ended that connection, so what they read is final.
    """


class NothingWritten(StoreError):
    """A statement that is a transaction of its own returned no row, and is committed."""


class TransactionFailed(StoreError):
    """A statement failed and its error was swallowed: the transaction is void, nothing changed."""


class MigrationError(StoreError):
    """The schema cannot be brought to this program's version; nothing was changed."""
