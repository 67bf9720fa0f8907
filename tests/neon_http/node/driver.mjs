// Runs the cases of the npm driver against an endpoint, and prints their outcomes as one JSON object.
import { readFileSync } from "node:fs";
import { neon, neonConfig } from "@neondatabase/serverless";

const { url, alice, bob, forged, expired } = JSON.parse(readFileSync(0, "utf8"));
neonConfig.fetchEndpoint = (host, port, { jwtAuth }) => `${url}?${host}&${port}&${jwtAuth}`;
const connectionString = "postgresql://authenticated@ep-todos.eu-central-1.aws.neon.tech/app";
const as = (authToken, options = {}) => neon(connectionString, { authToken, ...options });
const sql = as(alice);

const failure = async (promise) => {
  try {
    return { unexpected: await promise };
  } catch (error) {
    const { name, message, code, detail, position, constraint, routine, severity } = error;
    return { name, message, code, detail, position, constraint, routine, severity };
  }
};

const cases = {
  async ownRows() {
    await sql`INSERT INTO todos (task) VALUES (${"from node"})`;
    const tasks = async (token) => (await as(token)`SELECT task FROM todos ORDER BY id`).map((row) => row.task);
    return { alice: await tasks(alice), bob: await tasks(bob) };
  },
  async tokens() {
    let asked = 0;
    const ask = async () => (asked++, alice);
    const user = "SELECT auth.user_id() AS id";
    const lazy = as(ask);
    const found = [
      (await as(() => bob).query(user))[0].id,
      (await lazy.query(user))[0].id,
      (await sql.query(user, [], { authToken: bob }))[0].id,
      (await lazy.transaction([lazy.query(user), lazy.query(user, [], { authToken: bob })])).map(([row]) => row.id),
    ];
    return { found, asked };
  },
  async refused() {
    return {
      missing: await failure(neon(connectionString)`SELECT 1`),
      forged: await failure(as(forged)`SELECT 1`),
      expired: await failure(as(expired)`SELECT 1`),
      rejected: await failure(as(() => Promise.reject(new Error("signed out")))`SELECT 1`),
      otherRole: await failure(
        neon("postgresql://postgres:secret@ep-todos.neon.tech/app", { authToken: alice })`SELECT 1`,
      ),
    };
  },
  async styles() {
    const one = 1;
    return {
      template: await sql`SELECT ${one}::int AS one, ${"two"} AS two`,
      query: await sql.query("SELECT $1::int AS one", [1]),
      composed: await sql`SELECT task FROM todos WHERE ${sql`user_id = ${"alice"} AND task = ${"alice's"}`}`,
      unsafe: await sql`SELECT ${sql.unsafe("1 + 1")} AS two`,
      arrays: await as(alice, { arrayMode: true })`SELECT 1 AS a, 2 AS a`,
      empty: await sql.query(""),
    };
  },
  async fullResults() {
    const full = as(alice, { fullResults: true });
    const selected = await full`SELECT id, task FROM todos WHERE task = ${"alice's"}`;
    const created = await full`CREATE TEMP TABLE t (id int)`;
    const updated = await full`UPDATE todos SET task = task`;
    const pick = ({ command, rowCount, rowAsArray, rows, fields }) =>
      ({ command, rowCount, rowAsArray, rows, fields: fields.map(({ name, dataTypeID }) => [name, dataTypeID]) });
    return [selected, created, updated].map(pick);
  },
  async types() {
    const date = new Date("2026-01-02T03:04:05.678Z");
    const [row] = await sql`SELECT ${date}::timestamptz AS date, ${Buffer.from("\x00ÿ", "latin1")}::bytea AS bytes,
      ${"9007199254740993"}::bigint AS big, ${{ a: [1, null] }}::jsonb AS json, ${[1, null, 3]}::int[] AS ints,
      ${["a b", 'c"', null, "\\", "line\nfeed"]}::text[] AS texts, ${null}::text AS nothing, ${true}::bool AS yes, 1.10::numeric AS exact,
      0.5::float8 AS half, 'NaN'::float8 AS nan`;
    return {
      ...row, date: row.date.toISOString(), bytes: [...row.bytes], nan: Number.isNaN(row.nan), isDate: row.date instanceof Date,
    };
  },
  async transactions() {
    const modes = [];
    for (const isolationLevel of ["ReadUncommitted", "ReadCommitted", "RepeatableRead", "Serializable"]) {
      const options = { isolationLevel, readOnly: true, deferrable: true };
      const shown = ["isolation", "read_only", "deferrable"].map((name) =>
        sql.query(`SELECT current_setting('transaction_${name}') AS value`));
      modes.push((await sql.transaction(shown, options)).map(([row]) => row.value));
    }
    const before = (await sql`SELECT FROM todos`).length;
    const failed = await failure(sql.transaction((tx) => [tx`INSERT INTO todos (task) VALUES (${"lost"})`, tx`SELECT nope`]));
    const readOnly = await failure(sql.transaction([sql`DELETE FROM todos`], { readOnly: true }));
    const full = await sql.transaction([sql`SELECT 1 AS a`], { fullResults: true, arrayMode: true });
    return { modes, failed, readOnly, kept: (await sql`SELECT FROM todos`).length - before, full: full[0].rows };
  },
  async errors() {
    await sql`INSERT INTO todos (id, task) OVERRIDING SYSTEM VALUE VALUES (1000, ${"x"})`;
    return {
      denied: await failure(sql`INSERT INTO todos (user_id, task) VALUES (${"bob"}, ${"x"})`),
      unknown: await failure(sql`SELECT nope`),
      unique: await failure(sql`INSERT INTO todos (id, task) OVERRIDING SYSTEM VALUE VALUES (1000, ${"x"})`),
      several: await failure(sql.query("SELECT 1; SELECT 2")),
      type: await failure(sql.query("SELECT $1::int", ["one"])),
      large: await failure(sql.query("SELECT length($1)", ["x".repeat(11 * 1024 * 1024)])),
      huge: await failure(sql.query("SELECT repeat('x', 1000) FROM generate_series(1, 11000)")),
    };
  },
  async goesAway() {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 300);
    const options = { fetchOptions: { signal: controller.signal } };
    return await failure(sql.query("SELECT pg_sleep(60)", [], options));
  },
};

const outcomes = {};
for (const [name, run] of Object.entries(cases)) outcomes[name] = await run();
console.log(JSON.stringify(outcomes));
