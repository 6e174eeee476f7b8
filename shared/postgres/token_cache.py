"""The sealed token caches on PostgreSQL; a save names the version that it replaces."""

from __future__ import annotations

from shared.graph.token_cache import StoredCache
from shared.postgres.pool import Database
from shared.sealing import Sealed


class PostgresTokenCache:
    """See shared.graph.token_cache.TokenCacheStore. Accounts are compared without case."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, account: str) -> StoredCache | None:
        with self._database.connection() as conn:
            row = conn.execute(
                "select key_id, ciphertext, version from queue.token_cache where account = %s", (account.lower(),)
            ).fetchone()
        return StoredCache(Sealed(row[0], bytes(row[1])), row[2]) if row else None

    def save(self, account: str, sealed: Sealed, expected_version: int | None) -> bool:
        values = {
            "account": account.lower(),
            "key_id": sealed.key_id,
            "ciphertext": sealed.ciphertext,
            "version": expected_version,
        }
        if expected_version is None:
            statement = (
                "insert into queue.token_cache (account, key_id, ciphertext)"
                " values (%(account)s, %(key_id)s, %(ciphertext)s) on conflict (account) do nothing"
            )
        else:
            statement = (
                "update queue.token_cache set key_id = %(key_id)s, ciphertext = %(ciphertext)s,"
                " version = version + 1, updated_at = clock_timestamp()"
                " where account = %(account)s and version = %(version)s"
            )
        with self._database.connection() as conn:
            return conn.execute(statement, values).rowcount == 1
