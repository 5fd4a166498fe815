//! Accounts, rules and tables of every test cluster. Passwords here guard nothing.

/// The database that tests talk to.
pub(crate) const DATABASE: &str = "appdb";

/// What role `reader` maps to.
pub(crate) const READER: (&str, &str) = ("app_reader", "reader-secret-7f31");
/// What role `writer` maps to.
pub(crate) const WRITER: (&str, &str) = ("app_writer", "writer-secret-c02e");
/// A person with a password of their own, checked by PostgreSQL.
pub(crate) const DIRECT: (&str, &str) = ("direct_user", "direct-secret-55aa");

/// Accounts that PostgreSQL asks for a password in one particular way; all have the writer's rights.
pub(crate) const TRUST: (&str, &str) = ("acct_trust", "");
pub(crate) const CLEARTEXT: (&str, &str) = ("acct_cleartext", "cleartext-secret-19bd");
pub(crate) const MD5: (&str, &str) = ("acct_md5", "md5-secret-e4d0");
pub(crate) const SCRAM: (&str, &str) = ("acct_scram", "scram-secret-8c77");
/// SCRAM, and only over TLS.
pub(crate) const HOSTSSL: (&str, &str) = ("acct_hostssl", "hostssl-secret-2b6f");

/// `pg_hba.conf`: the way in is chosen by the account.
pub(crate) const HBA: &str = "\
local   all all            trust
host    all acct_trust     127.0.0.0/8 trust
host    all acct_cleartext 127.0.0.0/8 password
host    all acct_md5       127.0.0.0/8 md5
hostssl all acct_hostssl   127.0.0.0/8 scram-sha-256
host    all acct_hostssl   127.0.0.0/8 reject
host    all all            127.0.0.0/8 scram-sha-256
host    all all            ::1/128     scram-sha-256
";

/// SQL by database, in order.
pub(crate) const SCHEMA: &[(&str, &str)] = &[
    (
        "postgres",
        "create role app_reader login password 'reader-secret-7f31';
         create role app_writer login password 'writer-secret-c02e';
         create role direct_user login password 'direct-secret-55aa';
         create role acct_trust login in role app_writer;
         create role acct_cleartext login password 'cleartext-secret-19bd' in role app_writer;
         create role acct_scram login password 'scram-secret-8c77' in role app_writer;
         create role acct_hostssl login password 'hostssl-secret-2b6f' in role app_writer;
         set password_encryption = md5;
         create role acct_md5 login password 'md5-secret-e4d0' in role app_writer;",
    ),
    ("postgres", "create database appdb"),
    (
        "appdb",
        "create table notes (id int primary key, body text not null);
         insert into notes select n, 'note ' || n from generate_series(1, 100) n;
         grant select on notes to app_reader, direct_user;
         grant select, insert, update, delete on notes to app_writer;
         grant pg_signal_backend to app_writer;",
    ),
];
