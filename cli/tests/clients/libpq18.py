"""What only libpq 18 and its kind do: TLS without asking first, and protocol 3.2 with its long cancel key.

One line of output for each step; connects as PGHOST, PGPORT, PGUSER ... say.
"""

import sys
import threading

import psycopg


def direct_tls() -> None:
    with psycopg.connect("sslnegotiation=direct", autocommit=True) as conn:
        print("tls", conn.pgconn.ssl_in_use, conn.execute("select 40 + 2").fetchone()[0])


def protocol_3_2() -> None:
    with psycopg.connect("min_protocol_version=3.2 max_protocol_version=3.2", autocommit=True) as conn:
        print("protocol", conn.pgconn.full_protocol_version)
        marker = sys.argv[2]
        done = threading.Event()

        def cancel_when_told() -> None:
            # The test says when the query runs.
            sys.stdin.readline()
            conn.cancel_safe(timeout=20)
            done.set()

        canceller = threading.Thread(target=cancel_when_told)
        canceller.start()
        try:
            conn.execute(f"select pg_sleep(25) /* {marker} */".encode())
            print("never cancelled")
        except psycopg.errors.QueryCanceled as error:
            print("cancel", error.sqlstate)
        canceller.join()
        print("after", conn.execute("select 1").fetchone()[0])


{"direct-tls": direct_tls, "protocol-3.2": protocol_3_2}[sys.argv[1]]()
