"""The admin console through psycopg (simple and extended protocol) and asyncpg. Connects as PGHOST ... say."""

import asyncio
import os

import asyncpg
import psycopg
from psycopg.rows import dict_row


def show(step, value):
    print(f"{step}: {value}")


def psycopg_simple():
    with psycopg.connect(autocommit=True, cursor_factory=psycopg.ClientCursor, row_factory=dict_row) as conn:
        show("simple", [row["state"] for row in conn.execute("SHOW CLIENTS").fetchall()])
        show("several", conn.execute("SHOW PEERS; SHOW VERSION").statusmessage)
        show("notice", conn.execute("SHOW HELP").statusmessage)


def psycopg_extended():
    with psycopg.connect(row_factory=dict_row) as conn:
        # Not in autocommit: BEGIN and COMMIT around it.
        with conn.cursor(binary=True) as cursor:
            row = cursor.execute("SHOW CLIENTS", prepare=True).fetchone()
            show("extended", (row["type"], row["user"], row["database"], type(row["id"]).__name__))
            stats = cursor.execute("SHOW STATS").fetchall()
            show("numeric", all(int(row["total_query_count"]) >= 0 for row in stats))
        conn.commit()
        try:
            conn.execute("SELECT * FROM pg_class")
        except psycopg.errors.FeatureNotSupported as error:
            show("no SQL", error.sqlstate)
        conn.rollback()
        show("afterwards", conn.execute("SELECT 1 AS one").fetchone())


async def with_asyncpg():
    conn = await asyncpg.connect(ssl=False if os.environ["PGSSLMODE"] == "disable" else None)
    try:
        rows = await conn.fetch("SHOW LISTS")
        show("asyncpg", ("databases" in [row["list"] for row in rows], type(rows[0]["items"]).__name__))
        async with conn.transaction():
            show("in a transaction", await conn.fetchval("SELECT 1"))
            rows = [row async for row in conn.cursor("SHOW STATE", prefetch=1)]
            show("by cursor", len(rows))
        show("status", await conn.execute("SET extra_float_digits = 3"))
        await conn.reset()
        try:
            await conn.fetch("PAUSE gprxy")
        except asyncpg.PostgresError as error:
            show("refused", (error.sqlstate, str(error)))
    finally:
        await conn.close()


psycopg_simple()
psycopg_extended()
asyncio.run(with_asyncpg())
