// node-postgres: every way that it talks to a server, one line of output for each. Connects as PGHOST ... say.
import fs from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { Readable } from 'node:stream';
import pg from 'pg';
import { from, to } from 'pg-copy-streams';

const show = (step, value) => console.log(`${step}: ${JSON.stringify(value)}`);
const settings = {
  ssl: process.env.PGSSLMODE === 'disable' ? false : { ca: fs.readFileSync(process.env.PGSSLROOTCERT, 'utf8') },
};
const code = async (promise) => promise.then(() => 'no error', (error) => error.code);

const client = new pg.Client(settings);
await client.connect();

show('simple', (await client.query('select 40 + 2 as answer')).rows);
show('several', (await client.query('select 1 as a; select 2 as b')).map((result) => result.rows));
show('extended', (await client.query('select $1::int + 1 as n, $2::text as t', [41, 'ü'])).rows);
for (const n of [1, 2, 3]) {
  show('prepared', (await client.query({ name: 'double', text: 'select $1::int * 2 as n', values: [n] })).rows);
}
// Sent without waiting for one another.
const many = await Promise.all(Array.from({ length: 100 }, (_, n) => client.query('select $1::int as n', [n])));
show('queued', many.reduce((sum, result) => sum + result.rows[0].n, 0));

show('error', await code(client.query('select no_such_column from notes')));
show('extended error', await code(client.query('select 1 / $1::int', [0])));
show('after the errors', (await client.query('select 1 as n')).rows);

await client.query('create temp table t (n int primary key, body text)');
await client.query('begin');
await client.query('insert into t values ($1, $2)', [1, 'gone']);
await client.query('rollback');
show('rolled back', (await client.query('select count(*)::int from t')).rows);

const lines = Array.from({ length: 5000 }, (_, n) => `${n}\t${'row'.repeat(20)}\n`);
await pipeline(Readable.from(lines), client.query(from('copy t from stdin')));
let bytes = 0;
for await (const chunk of client.query(to('copy (select * from t order by n) to stdout'))) bytes += chunk.length;
show('copy', [(await client.query('select count(*)::int from t')).rows[0].count, bytes]);

const notified = new Promise((resolve) => client.once('notification', resolve));
await client.query('listen news');
await client.query("notify news, 'hello'");
show('notified', (await notified).payload);

show('cancel', await cancelled());
// This driver does not wait until the cancel is over: its tail may still hit the next query.
while ((await code(client.query('select 1'))) === '57014');
show('after the cancel', (await client.query('select 1 as n')).rows);
await client.end();

async function cancelled() {
  const query = new pg.Query('select pg_sleep(25)');
  const ended = new Promise((resolve) => {
    query.on('error', (error) => resolve(error.code));
    query.on('end', () => resolve('never came'));
  });
  client.query(query);
  setTimeout(() => new pg.Client(settings).cancel(client, query), 500);
  return ended;
}
