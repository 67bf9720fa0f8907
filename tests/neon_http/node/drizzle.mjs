// The todos table of Neon's guide, in Drizzle, over an endpoint.
import { readFileSync } from "node:fs";
import { neon, neonConfig } from "@neondatabase/serverless";
import { and, eq, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/neon-http";
import { bigint, pgTable, text } from "drizzle-orm/pg-core";

const { url, alice, bob } = JSON.parse(readFileSync(0, "utf8"));
neonConfig.fetchEndpoint = url;
const todos = pgTable("todos", {
  id: bigint("id", { mode: "bigint" }).primaryKey().generatedByDefaultAsIdentity(),
  userId: text("user_id").notNull().default(sql`(auth.user_id())`),
  task: text("task").notNull(),
});
const connectionString = "postgresql://authenticated@ep-todos.neon.tech/app";
const as = (authToken) => drizzle(neon(connectionString, { authToken }), { schema: { todos } });
const db = as(alice);
const tasks = async (person) => (await as(person).select().from(todos).orderBy(todos.id)).map((row) => row.task);

const [inserted] = await db.insert(todos).values({ task: "by drizzle" }).returning();
await db.update(todos).set({ task: "renamed" }).where(eq(todos.id, inserted.id));
const found = await db.query.todos.findFirst({ where: and(eq(todos.task, "renamed"), eq(todos.userId, "alice")) });
const batch = await db.batch([
  db.insert(todos).values({ task: "in a batch" }),
  db.select({ task: todos.task }).from(todos).orderBy(todos.id),
]);
const stolen = await as(bob).update(todos).set({ task: "stolen" }).where(eq(todos.id, inserted.id)).returning();
let denied;
try {
  await db.insert(todos).values({ task: "x", userId: "bob" });
} catch (error) {
  denied = (error.cause ?? error).code;
}
console.log(JSON.stringify({
  owner: inserted.userId, isBigint: typeof inserted.id === "bigint", found: found.task, batch: batch[1], stolen, denied,
  alice: await tasks(alice), bob: await tasks(bob),
}));
