// The page of the todos.  It has no build step and no dependency.

const $ = (id) => document.getElementById(id);
const config = await (await fetch("/api/config")).json();

/** Make an element; a property that begins with "on" is a listener. */
function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function say(message, bad = false) {
  $("status").textContent = message;
  $("status").className = bad ? "bad" : "";
}

// The person: Stack Auth's REST API, or the stand-in for it

/** The access token stays in memory; the tab keeps the refresh token, so that a reload signs nobody out. */
let person = JSON.parse(sessionStorage.getItem("person") ?? "null");
let accessToken = null;
let refreshing = null;

/** Ask the provider; with *keepalive*, also if the person leaves the page meanwhile. */
async function auth(method, path, { body = {}, refreshToken, keepalive = false } = {}) {
  const headers = {
    "content-type": "application/json",
    "x-stack-access-type": "client",
    "x-stack-project-id": config.project_id,
  };
  if (config.client_key) headers["x-stack-publishable-client-key"] = config.client_key;
  if (refreshToken) headers["x-stack-refresh-token"] = refreshToken;
  const answer = await fetch(`${config.auth_url}/api/v1/auth${path}`, {
    method, headers, body: JSON.stringify(body), credentials: "omit", keepalive,
  });
  if (!answer.ok) throw new Error("The sign-in was refused.");
  return answer.json();
}

async function signIn(email, password) {
  const answer = await auth("POST", "/password/sign-in", { body: { email, password } });
  accessToken = answer.access_token;
  person = { id: answer.user_id, email, refreshToken: answer.refresh_token };
  sessionStorage.setItem("person", JSON.stringify(person));
  await start("new-todo");
  say(`You are signed in as ${email}.`);
}

function forget() {
  person = accessToken = null;
  sessionStorage.removeItem("person");
}

async function signOut() {
  const { refreshToken } = person;
  forget();
  const over = auth("DELETE", "/sessions/current", { refreshToken, keepalive: true })
    .then(() => ["You are signed out."], (error) => [error.message, true]);
  await start("sign-in");
  say(...await over);
}

/** Get another access token; requests that need one at the same time share the call. */
function refresh() {
  refreshing ??= auth("POST", "/sessions/current/refresh", { refreshToken: person.refreshToken })
    .then((answer) => { accessToken = answer.access_token; })
    .catch(async () => { forget(); await start("sign-in"); throw new Error("Your session is over. Sign in again."); })
    .finally(() => { refreshing = null; });
  return refreshing;
}

/** The claims of a token; only the server verifies it. */
function claimsOf(token) {
  return JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
}

async function validToken() {
  if (person && !(accessToken && claimsOf(accessToken).exp > Date.now() / 1000)) await refresh();
  return accessToken;
}

// Requests

const requests = [];
let shown = null;

/** Send a request as the person; a token that the server refuses is renewed once. */
async function send(method, path, { body, headers = {}, quiet = false } = {}) {
  const ask = async () => {
    const token = await validToken();
    const sent = { "content-type": "application/json", ...headers };
    if (token) sent.authorization = `Bearer ${token}`;
    return fetch(path, { method, headers: sent, body: body === undefined ? undefined : JSON.stringify(body) });
  };
  let answer = await ask();
  if (answer.status === 401 && person) {
    await refresh();
    answer = await ask();
  }
  if (!quiet) record(`${method} ${path}`, answer.headers.get("x-report"));
  return answer;
}

async function call(method, path, options) {
  const answer = await send(method, path, options);
  const text = await answer.text();
  if (!answer.ok) throw new Error(text.startsWith("{") ? JSON.parse(text).detail : answer.statusText);
  return text ? JSON.parse(text) : null;
}

/** Do something that the person asked for, load everything again, and say how it went. */
async function act(done, ...request) {
  shown = null;
  try {
    const refusal = await call(...request).then(() => null, (error) => error);
    await load();
    if (refusal) throw refusal;
    say(done);
  } catch (error) {
    say(error.message, true);
  }
}

// What the database sees

function record(label, name) {
  if (!name) return;
  const request = { label, name };
  requests.unshift(request);
  requests.length = Math.min(requests.length, 10);
  shown ??= request;
  show();
}

async function show() {
  const request = shown;
  $("requests").replaceChildren(...requests.map((one) => h("option", { selected: one === request }, one.label)));
  request.report ??= await (await fetch(`/api/reports/${request.name}`)).json();
  if (request !== shown) return;
  const { role, claims, trips } = request.report;
  $("role").textContent = role;
  $("claims").textContent = Object.keys(claims).length ? JSON.stringify(claims, null, 1) : "none";
  $("trips").replaceChildren(...trips.map((statements, index) => h("li", {},
    h("pre", { tabIndex: 0, "aria-label": `Round trip ${index + 1}` }, statements.join(";\n") + ";"))));
  $("trips-title").textContent = trips.length
    ? `Statements, in ${trips.length} round trip${trips.length === 1 ? "" : "s"}`
    : "Statements (Linux shows them)";
}

$("requests").addEventListener("change", (event) => { shown = requests[event.target.selectedIndex]; show(); });

async function showPolicies() {
  const policies = await call("GET", "/api/policies", { quiet: true });
  $("policies-role").textContent = person ? "authenticated" : "anonymous";
  const rows = policies.map((policy) => h("tr", {},
    h("td", {}, policy.tablename), h("td", {}, policy.cmd), h("td", {}, policy.policyname),
    h("td", {}, h("code", {}, policy.qual ?? policy.with_check))));
  $("policies").replaceChildren(h("table", {},
    h("thead", {}, h("tr", {}, ...["Table", "Command", "Policy", "Condition"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, ...rows)));
}

// Todos

function todoItem(todo, path, { author = null, mayChange = true } = {}) {
  const key = `${path}/${todo.id}`;
  const item = h("li", {});
  const task = h("span", { className: todo.is_complete ? "done" : "" }, todo.task);
  const rename = () => {
    const input = h("input", { value: todo.task, required: true, maxLength: 200, "aria-label": `New name of ${todo.task}` });
    const close = () => { item.replaceWith(todoItem(todo, path, { author, mayChange })); focusOn(`${key}/rename`); };
    item.replaceChildren(h("form", {
      onsubmit: (event) => {
        event.preventDefault();
        close();
        act(`Renamed to ${input.value}.`, "PATCH", key, { body: { task: input.value } });
      },
      onkeydown: (event) => { if (event.key === "Escape") close(); },
    }, input, h("button", {}, "Save")));
    input.select();
  };
  item.append(h("label", {}, h("input", {
    type: "checkbox", checked: todo.is_complete, disabled: !mayChange, "data-key": `${key}/done`,
    onchange: (event) => act(event.target.checked ? `Completed ${todo.task}.` : `Reopened ${todo.task}.`,
      "PATCH", key, { body: { is_complete: event.target.checked } }),
  }), task));
  if (author) item.append(h("span", { className: "author" }, `by ${author}`));
  if (mayChange) item.append(
    h("button", { className: "small", "data-key": `${key}/rename`, "aria-label": `Rename ${todo.task}`, onclick: rename }, "Rename"),
    h("button", { className: "small", "data-key": `${key}/delete`, "aria-label": `Delete ${todo.task}`,
      onclick: () => act(`Deleted ${todo.task}.`, "DELETE", key) }, "Delete"));
  return item;
}

function listCard(list) {
  const key = `/api/lists/${list.id}`;
  const role = person ? list.members[person.id] : undefined;
  const card = h("article", { className: "list", "aria-label": list.name });
  card.append(h("h3", {}, list.name,
    list.is_public ? h("span", { className: "badge" }, "public") : null,
    role ? h("span", { className: "badge" }, role === "admin" ? "you are its admin" : "you are a member") : null));
  const members = Object.entries(list.members);
  if (members.length) card.append(h("ul", { className: "members", "aria-label": `Members of ${list.name}` },
    ...members.map(([id, rank]) => h("li", {}, rank === "admin" ? `${id} (admin) ` : `${id} `,
      role === "admin" && id !== person.id ? h("button", { className: "small", "data-key": `${key}/members/${id}`,
        "aria-label": `Remove ${id} from ${list.name}`,
        onclick: () => act(`Removed ${id}.`, "DELETE", `${key}/members/${encodeURIComponent(id)}`) }, "Remove") : null))));
  card.append(h("ul", { className: "todos" }, ...list.todos.map((todo) => todoItem(todo, "/api/list-todos", {
    author: todo.user_id,
    // For looks only: the database refuses the others.
    mayChange: role === "admin" || (role === "member" && todo.user_id === person.id),
  }))));
  if (role) card.append(addForm(`New todo in ${list.name}`, `${key}/todos`, "Add",
    (task) => act(`Added ${task} to ${list.name}.`, "POST", `${key}/todos`, { body: { task } })));
  if (role === "admin") card.append(
    addForm(`New member of ${list.name}`, `${key}/members`, "Invite",
      (user_id) => act(`Added ${user_id} to ${list.name}.`, "POST", `${key}/members`, { body: { user_id } })),
    h("div", { className: "tools" },
      h("button", { className: "small", "data-key": `${key}/public`, "aria-label": `${list.is_public ? "Make private" : "Publish"}: ${list.name}`,
        onclick: () => act(list.is_public ? `${list.name} is private.` : `${list.name} is public.`,
          "PATCH", key, { body: { is_public: !list.is_public } }) }, list.is_public ? "Make private" : "Publish"),
      h("button", { className: "small", "data-key": `${key}/rename`, "aria-label": `Rename the list ${list.name}`,
        onclick: () => {
          const form = addForm(`New name of ${list.name}`, `${key}/name`, "Save",
            (name) => act(`Renamed to ${name}.`, "PATCH", key, { body: { name } }));
          form.firstChild.value = list.name;
          form.addEventListener("keydown", (event) => { if (event.key === "Escape") load(`${key}/rename`); });
          card.querySelector("h3").replaceWith(form);
          form.firstChild.select();
        } }, "Rename list"),
      h("button", { className: "small", "data-key": `${key}/delete`, "aria-label": `Delete the list ${list.name}`,
        onclick: () => confirm(`Delete ${list.name} and its todos?`) && act(`Deleted ${list.name}.`, "DELETE", key) }, "Delete list")));
  else if (role) card.append(h("div", { className: "tools" },
    h("button", { className: "small", "data-key": `${key}/leave`, "aria-label": `Leave ${list.name}`,
      onclick: () => act(`You left ${list.name}.`, "DELETE", `${key}/members/${encodeURIComponent(person.id)}`) }, "Leave")));
  return card;
}

function addForm(label, key, verb, add) {
  const input = h("input", { placeholder: label, "aria-label": label, "data-key": key, required: true, maxLength: 200, autocomplete: "off" });
  return h("form", {
    onsubmit: (event) => {
      event.preventDefault();
      const { value } = input;
      input.value = "";
      add(value);
    },
  }, input, h("button", {}, verb));
}

function focusOn(key) {
  const found = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  found?.focus();
  return Boolean(found);
}

let loads = 0;

/** Read everything again.  The focus stays where it is, and so does text that isn't sent yet. */
async function load(focused) {
  const mine = ++loads;
  const [todos, lists] = await Promise.all([person ? call("GET", "/api/todos") : [], call("GET", "/api/lists")]);
  if (mine !== loads) return;
  focused ??= document.activeElement.dataset.key;
  const typed = [...document.querySelectorAll("#lists input[data-key]:not([type=checkbox])")].map((input) => [input.dataset.key, input.value]);
  $("todos").replaceChildren(...todos.map((todo) => todoItem(todo, "/api/todos")));
  $("lists").replaceChildren(...lists.map(listCard));
  for (const [key, value] of typed) {
    const input = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
    if (input) input.value = value;
  }
  // The row may be gone: then the keyboard goes on at an input near it.
  if (focused && !focusOn(focused)) focusOn(focused.startsWith("/api/todos") ? "new-todo" : "new-list");
}

// SQL over HTTP

const EXAMPLES = {
  "All rows": "SELECT * FROM todos",
  "Other people's rows": "SELECT * FROM todos WHERE user_id <> auth.user_id()",
  "Claim to be bob": "WITH claim AS MATERIALIZED (\n  SELECT set_config('request.jwt.claims', '{\"sub\": \"bob\"}', true)\n)\nSELECT todos.* FROM claim, todos",
  "Switch policies off": "ALTER TABLE todos DISABLE ROW LEVEL SECURITY",
};

async function runSql(query) {
  shown = null;
  const answer = await send("POST", "/sql", {
    // The protocol of Neon's driver: the role of the connection string must be that of the token.
    headers: { "neon-connection-string": "postgresql://authenticated@todos.localhost/todos", "neon-array-mode": "true" },
    body: { query, params: [] },
  });
  const body = await answer.json();
  const result = $("result");
  result.hidden = false;
  if (!answer.ok) {
    result.replaceChildren(h("p", { className: "bad" }, `${body.message}${body.code ? ` (SQLSTATE ${body.code})` : ""}`));
  } else if (body.fields.length) {
    result.replaceChildren(
      h("p", {}, `${body.rows.length} row${body.rows.length === 1 ? "" : "s"}`),
      h("table", {},
        h("thead", {}, h("tr", {}, ...body.fields.map((field) => h("th", { scope: "col" }, field.name)))),
        h("tbody", {}, ...body.rows.map((row) => h("tr", {}, ...row.map((value) => h("td", {}, value === null ? "NULL" : String(value))))))));
  } else {
    result.replaceChildren(h("p", {}, `${body.command}: ${body.rowCount ?? 0} rows`));
  }
}

$("examples").append(...Object.entries(EXAMPLES).map(([name, sql]) =>
  h("button", { type: "button", className: "small", onclick: () => { $("sql").value = sql; $("run-sql").requestSubmit(); } }, name)));
$("run-sql").addEventListener("submit", (event) => {
  event.preventDefault();
  runSql($("sql").value).catch((error) => say(error.message, true));
});

// The page

function showPerson() {
  const who = $("who");
  if (person) {
    who.replaceChildren(h("span", {}, "Signed in as ", h("strong", {}, person.email)));
    if (config.people.length) who.append(h("button", { className: "small", onclick: () =>
      auth("POST", "/demo/expired-token", { refreshToken: person.refreshToken }).then((answer) => {
        accessToken = answer.access_token;
        say("Your token has expired. The next request renews it.");
      }).catch((error) => say(error.message, true)) }, "Let my token expire"));
    who.append(h("button", { className: "small", "data-key": "sign-out", onclick: signOut }, "Sign out"));
  } else if (config.people.length) {
    who.replaceChildren(...config.people.map((name, index) => h("button", { className: "main", "data-key": index ? "" : "sign-in",
      onclick: () => signIn(`${name}@example.com`, "").catch((error) => say(error.message, true)) }, `Sign in as ${name}`)));
  } else {
    const email = h("input", { type: "email", required: true, autocomplete: "username", placeholder: "Email", "aria-label": "Email", "data-key": "sign-in" });
    const password = h("input", { type: "password", required: true, autocomplete: "current-password", placeholder: "Password", "aria-label": "Password" });
    who.replaceChildren(h("form", { onsubmit: (event) => {
      event.preventDefault();
      signIn(email.value, password.value).catch((error) => say(error.message, true));
    } }, email, password, h("button", {}, "Sign in")));
  }
}

async function start(focused) {
  requests.length = 0;
  shown = null;
  for (const id of ["mine", "add-list", "try"]) $(id).hidden = !person;
  $("result").hidden = true;
  $("todos").replaceChildren();
  $("lists").replaceChildren();
  $("shared-title").textContent = person ? "Lists" : "Public board";
  $("shared-hint").textContent = person
    ? "Members see each other and each other’s todos. Everyone sees a public list."
    : "You are anonymous: you see public lists only.";
  showPerson();
  await Promise.all([load(focused), showPolicies()]);
}

for (const [form, input, add] of [
  ["add-todo", "new-todo", (task) => act(`Added ${task}.`, "POST", "/api/todos", { body: { task } })],
  ["add-list", "new-list", (name) => act(`Created ${name}.`, "POST", "/api/lists", { body: { name } })],
]) {
  $(form).addEventListener("submit", (event) => {
    event.preventDefault();
    const { value } = $(input);
    $(input).value = "";
    add(value);
  });
}

await start().catch((error) => say(error.message, true));
