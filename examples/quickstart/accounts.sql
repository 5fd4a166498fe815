-- The two PostgreSQL accounts of the quickstart. Run it as the owner of the tables, with the passwords in the environment:
--   READER_PASSWORD=… WRITER_PASSWORD=… psql -v ON_ERROR_STOP=1 -f accounts.sql app
\set reader_password `printf %s "$READER_PASSWORD"`
\set writer_password `printf %s "$WRITER_PASSWORD"`

create role app_reader login password :'reader_password';
create role app_writer login password :'writer_password';

grant usage on schema public to app_reader, app_writer;
grant select on all tables in schema public to app_reader;
grant select, insert, update, delete on all tables in schema public to app_writer;
grant usage on all sequences in schema public to app_writer;
