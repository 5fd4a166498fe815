"""asyncpg: every way that it talks to a server, one line of output for each. Connects as PGHOST ... say."""

import asyncio
import io
import os
import ssl

import asyncpg


def show(step: str, value: object) -> None:
    print(f"{step}: {value}", flush=True)


async def main() -> None:
    context = False
    if os.environ["PGSSLMODE"] != "disable":
        context = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
    conn = await asyncpg.connect(ssl=context, timeout=20)
    show("simple", await conn.execute("select 1; select 2"))
    show("extended", list(await conn.fetchrow("select $1::int + 1, $2::text", 41, "ü")))

    statement = await conn.prepare("select n from generate_series(1, $1::int) n")
    show("prepared", len(await statement.fetch(100)))
    show("prepared again", len(await statement.fetch(7)))

    for wrong in ("select no_such_column from notes", "selec 1", "select 1 / (n - 1) from generate_series(1, 1) n"):
        try:
            await conn.fetch(wrong)
        except asyncpg.PostgresError as error:
            show("error", error.sqlstate)
    show("after the errors", await conn.fetchval("select 1"))

    await conn.execute("create temp table t (n int primary key, body text)")
    async with conn.transaction():
        await conn.executemany("insert into t values ($1, $2)", [(n, "row") for n in range(500)])
    try:
        async with conn.transaction():
            await conn.execute("insert into t values (1000, 'gone')")
            await conn.execute("insert into t values (1, 'twice')")
    except asyncpg.UniqueViolationError as error:
        show("unique violation", error.sqlstate)
    show("transaction", await conn.fetchval("select count(*) from t"))

    show("cursor", await cursor(conn))
    show("copy in", await conn.copy_records_to_table("t", records=[(n, "x" * 50) for n in range(2000, 6000)]))
    out = io.BytesIO()
    show("copy out", await conn.copy_from_query("select * from t order by n", output=out))
    show("copy out bytes", len(out.getvalue()))

    task = asyncio.ensure_future(conn.fetch("select pg_sleep(25)"))
    await asyncio.sleep(0.5)
    task.cancel()  # asyncpg sends a cancel request
    try:
        await task
        show("cancel", "never came")
    except asyncio.CancelledError:
        show("cancel", "cancelled")
    show("after the cancel", await conn.fetchval("select 1", timeout=10))
    await conn.close()


async def cursor(conn: asyncpg.Connection) -> int:
    """Execute with a row limit: suspended and resumed portals."""
    async with conn.transaction():
        return sum([row["n"] async for row in conn.cursor("select n from t order by n", prefetch=17)])


asyncio.run(main())
