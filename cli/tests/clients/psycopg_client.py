"""psycopg 3 (libpq 18): every way that it talks to a server, one line of output for each.

Connects as PGHOST, PGPORT, PGUSER ... say. What it prints depends on neither the account nor the process id, so a
direct run and one through a proxy must print the same.
"""

import io
import threading

import psycopg


def main() -> None:
    with psycopg.connect(autocommit=True) as conn:
        show("tls", conn.pgconn.ssl_in_use)
        show("simple", psycopg.ClientCursor(conn).execute("select 40 + 2, 'x'").fetchone())
        show("extended", conn.execute("select %s::int + 1, %s::text", (41, "ü")).fetchone())
        show("binary", conn.execute("select %b::int4 + 1", (41,), binary=True).fetchone())
        for number in range(3):
            show("prepared", conn.execute("select %s::int * 2", (number,), prepare=True).fetchone())

        with conn.pipeline():
            cursors = [conn.execute("select %s::int", (number,)) for number in range(50)]
        show("pipeline", sum(cursor.fetchone()[0] for cursor in cursors))

        try:
            with conn.pipeline():
                conn.execute("select 1")
                conn.execute("select 1 / 0")
                conn.execute("select 2")
        except psycopg.Error as error:
            show("pipeline error", error.sqlstate)

        try:
            conn.execute("select no_such_column from notes")
        except psycopg.Error as error:
            show("error", error.sqlstate)
        show("after the error", conn.execute("select 1").fetchone())

        transaction(conn)
        copy(conn)
        stream(conn)
        cancel(conn)
        show("after the cancel", conn.execute("select 1").fetchone())


def show(step: str, value: object) -> None:
    print(f"{step}: {value}", flush=True)


def transaction(conn: psycopg.Connection) -> None:
    conn.execute("create temp table t (n int primary key, body text)")
    with conn.transaction():
        conn.execute("insert into t values (1, 'kept')")
    try:
        with conn.transaction():
            conn.execute("insert into t values (2, 'gone')")
            conn.execute("insert into t values (1, 'twice')")
    except psycopg.errors.UniqueViolation as error:
        show("unique violation", error.sqlstate)
    show("transaction", conn.execute("select * from t").fetchall())


def copy(conn: psycopg.Connection) -> None:
    cursor = conn.cursor()
    with cursor.copy("copy t from stdin") as writer:
        for number in range(10, 5010):
            writer.write_row((number, "row" * 20))
    show("copy in", cursor.rowcount)
    total = 0
    with cursor.copy("copy (select * from t order by n) to stdout") as reader:
        for block in reader:
            total += len(block)
    show("copy out", total)
    try:
        with cursor.copy("copy t from stdin") as writer:
            writer.write(b"not a number\tx\n")
    except psycopg.Error as error:
        show("copy error", error.sqlstate)


def stream(conn: psycopg.Connection) -> None:
    cursor = conn.cursor()
    show("stream", sum(row[0] for row in cursor.stream("select n from generate_series(1, 1000) n")))
    large = io.StringIO("é" * 3_000_000).getvalue()
    show("large parameter", conn.execute("select length(%s::text)", (large,)).fetchone())


def cancel(conn: psycopg.Connection) -> None:
    done = threading.Event()

    def keep_cancelling() -> None:
        # The first request may come before the query; a second one after a whole second cannot hit the next query,
        # because by then the first has worked.
        pause = 0.3
        while not done.wait(pause):
            conn.cancel_safe(timeout=10)
            pause = 1.0

    canceller = threading.Thread(target=keep_cancelling)
    canceller.start()
    try:
        conn.execute("select pg_sleep(25)")
        show("cancel", "never came")
    except psycopg.errors.QueryCanceled as error:
        show("cancel", error.sqlstate)
    finally:
        done.set()
        canceller.join()


main()
