// Runs the cases of the npm driver against an endpoint, and prints their outcomes as one JSON object.
import { readFileSync } from "node:fs";
import { neon, neonConfig } from "@neondatabase/serverless";

const { url, alice, bob, forged, expired } = JSON.parse(readFileSync(0, "utf8"));
neonConfig.fetchEndpoint = () => url;
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

const outcomes = {};
const cases = {
  async ownRows() {
    await sql`INSERT INTO todos (task) VALUES (${"from node"})`;
    const task = async (token) => (await as(token)`SELECT task FROM todos ORDER BY id`).map((row) => row.task);
    return { alice: await task(alice), bob: await task(bob) };
  },
  async missingToken() {
    return await failure(neon(connectionString)`SELECT 1`);
  },
};
for (const [name, run] of Object.entries(cases)) outcomes[name] = await run();
console.log(JSON.stringify(outcomes));
