//! End to end: real PostgreSQL, a real OIDC provider, real clients, and the real `gprxy` between them.
//!
//! `scripts/install-test-deps` installs what these tests need; `make test` runs it and then them. Every test has its
//! own proxy on its own port, so they run side by side. Set `GPRXY_TEST_KEEP=1` to keep logs and data directories, and
//! `GPRXY_TEST_RUNTIME=smol` to run all of them on smol where both runtimes are built in.

mod support;

mod audit_trail;
#[cfg(feature = "tokio")]
mod auth_query;
mod auth_types;
mod cancel;
mod console;
mod copy_attack;
mod differential;
mod drivers;
mod faults_client;
mod faults_process;
mod faults_server;
mod hostile;
mod isolation;
mod login;
mod long_names;
mod never_again;
mod operations;
mod peers;
mod pgbouncer_console;
mod pgbouncer_ini;
mod pool;
mod pool_limits;
mod pooled_statements;
mod pooling;
mod providers;
mod relay;
mod reload;
mod reset_queries;
mod rig;
#[cfg(all(feature = "tokio", feature = "smol"))]
mod runtimes;
mod rust_driver;
mod server_down;
mod settings;
mod soak;
mod sso;
mod sso_browser;
mod sso_hostile;
mod sso_psql;
mod sso_quickstart;
mod sso_renewal;
mod sso_terminal;
mod standing_pools;
mod startup_parameters;
mod timeouts;
mod tools;
mod tunnel;
mod upstream;
mod ways_in;
mod ways_out;
