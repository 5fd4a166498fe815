// The admin console through node-postgres. Connects as PGHOST ... say.
import fs from 'node:fs';
import pg from 'pg';

const show = (step, value) => console.log(`${step}: ${JSON.stringify(value)}`);
const client = new pg.Client({
  ssl: process.env.PGSSLMODE === 'disable' ? false : { ca: fs.readFileSync(process.env.PGSSLROOTCERT, 'utf8') },
});
await client.connect();
const { rows } = await client.query('SHOW CLIENTS');
show('simple', rows.map((row) => [row.type, row.database]));
const extended = await client.query({ name: 'lists', text: 'SHOW LISTS', values: [] });
show('extended', extended.rows.length > 10);
show('error', await client.query('SELECT * FROM pg_class').catch((error) => error.code));
await client.end();
