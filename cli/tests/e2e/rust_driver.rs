//! tokio-postgres, linked into this test: the same walk as the other drivers'.

use std::future::Future;
use std::time::Duration;

use tokio_postgres::{Client, Config as Settings, NoTls, SimpleQueryMessage};

use crate::support::promise::unchanged;
use crate::support::target::Target;

/// Runs a future on a runtime of its own, with the driver's connection beside it.
fn with_client<F: Future<Output = ()>>(target: &Target, walk: impl FnOnce(Client) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut settings = Settings::new();
        settings.host("127.0.0.1").port(target.port).user(&target.user).password(&target.password);
        let (client, connection) = settings.dbname(&target.database).connect(NoTls).await.expect("connected");
        let connection = tokio::spawn(connection);
        walk(client).await;
        tokio::time::timeout(Duration::from_secs(20), connection).await.expect("closed").unwrap().unwrap();
    });
}

fn code(error: &tokio_postgres::Error) -> &str {
    error.code().unwrap_or_else(|| panic!("no SQLSTATE in {error}")).code()
}

fn first_column(messages: &[SimpleQueryMessage]) -> Vec<&str> {
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    rows.collect()
}

async fn number(client: &Client, sql: &str) -> i32 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

unchanged! {
    fn simple_and_prepared_queries(target) {
        with_client(target, |client| async move {
            let messages = client.simple_query("select 1; select 'two'").await.unwrap();
            assert_eq!(first_column(&messages), ["1", "two"]);
            let statement = client.prepare("select $1::int4 + $2::int4").await.unwrap();
            for n in 0..5_i32 {
                let row = client.query_one(&statement, &[&n, &40_i32]).await.unwrap();
                assert_eq!(row.get::<_, i32>(0), n + 40);
            }
            drop(statement);
            assert_eq!(number(&client, "select 7").await, 7);
        });
    }
}

unchanged! {
    fn a_pipeline_of_futures(target) {
        with_client(target, |client| async move {
            let statement = client.prepare("select 100 / $1::int4").await.unwrap();
            let divide = |by: i32| {
                let (client, statement) = (&client, &statement);
                async move { client.query_one(statement, &[&by]).await }
            };
            // Polled together, all three are on their way before the first answer.
            let (a, b, c) = tokio::join!(divide(1), divide(0), divide(2));
            assert_eq!(a.unwrap().get::<_, i32>(0), 100);
            assert_eq!(code(&b.unwrap_err()), "22012");
            assert_eq!(c.unwrap().get::<_, i32>(0), 50);
        });
    }
}

unchanged! {
    fn transactions(target) {
        with_client(target, |mut client| async move {
            client.batch_execute("create temp table t (n int4 primary key)").await.unwrap();
            let kept = client.transaction().await.unwrap();
            kept.execute("insert into t values (1)", &[]).await.unwrap();
            kept.commit().await.unwrap();
            let failed = client.transaction().await.unwrap();
            failed.execute("insert into t values (2)", &[]).await.unwrap();
            let twice = failed.execute("insert into t values (1)", &[]).await.unwrap_err();
            assert_eq!(code(&twice), "23505");
            failed.rollback().await.unwrap();
            assert_eq!(number(&client, "select count(*)::int4 from t").await, 1);
        });
    }
}

unchanged! {
    fn errors_leave_the_session_usable(target) {
        with_client(target, |client| async move {
            assert_eq!(code(&client.query("select no_such_column from notes", &[]).await.unwrap_err()), "42703");
            assert_eq!(code(&client.simple_query("selec").await.unwrap_err()), "42601");
            assert_eq!(number(&client, "select 1").await, 1);
        });
    }
}

unchanged! {
    fn cancel(target) {
        let marker = format!("tokio-postgres-{}", target.port);
        let server = target.server;
        with_client(target, |client| async move {
            let token = client.cancel_token();
            let sql = format!("select pg_sleep(25) /* {marker} */");
            let cancelled = async {
                let watched = marker.clone();
                tokio::task::spawn_blocking(move || server.await_running(&watched)).await.unwrap();
                token.cancel_query(NoTls).await.unwrap();
            };
            let (answer, ()) = tokio::join!(client.simple_query(&sql), cancelled);
            assert_eq!(code(&answer.unwrap_err()), "57014");
            // This driver does not wait until the cancel is over: its tail may still hit the next query.
            while let Err(error) = client.simple_query("select 1").await {
                assert_eq!(code(&error), "57014");
            }
            assert_eq!(number(&client, "select 1").await, 1);
        });
    }
}
