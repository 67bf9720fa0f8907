"use strict";
const form = document.querySelector("form");
const tables = [...document.querySelectorAll("table")];
const count = document.querySelector(".count");
const rows = [...document.querySelectorAll("tbody tr")].map((element) => ({
  element,
  text: element.textContent.toLowerCase(),
  cells: [...element.querySelectorAll("td[data-command]")],
  isEntry: element.closest("table").id === "entries",
}));

function matches(row, wanted) {
  const { role, kind, command, verdict, change } = wanted;
  if (!wanted.words.every((word) => row.text.includes(word))) return false;
  if (role && row.element.dataset.role !== role) return false;
  if (kind && row.element.dataset.kind !== kind) return false;
  if (!row.isEntry) {
    return (
      (!command || row.element.dataset.commands.split(" ").includes(command)) &&
      (!change || (change === "any" ? row.element.dataset.change : row.element.dataset.change === change))
    );
  }
  if (!command && !verdict && !change) return true;
  return row.cells.some(
    ({ dataset }) =>
      (!command || dataset.command === command) &&
      (!verdict || (verdict === "some" ? dataset.verdict !== "never" : dataset.verdict === verdict)) &&
      (!change || (change === "any" ? dataset.change : dataset.change === change)),
  );
}

function filter() {
  const wanted = Object.fromEntries(new FormData(form));
  wanted.words = wanted.search.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = { true: 0, false: 0 };
  const all = { true: 0, false: 0 };
  for (const row of rows) {
    const isShown = matches(row, wanted);
    row.element.hidden = !isShown;
    all[row.isEntry] += 1;
    shown[row.isEntry] += isShown;
  }
  count.textContent =
    `${shown.true} of ${all.true} rows of the matrix, ${shown.false} of ${all.false} ways around the policies`;
}

function sort(header) {
  const table = header.closest("table");
  const place = [...header.parentElement.children].indexOf(header);
  const direction = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of header.parentElement.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row, number) => ({
    row,
    number,
    key: row.children[place].dataset.sort ?? row.children[place].textContent,
  }));
  const collator = new Intl.Collator("en", { numeric: true });
  keyed.sort((a, b) => sign * collator.compare(a.key, b.key) || a.number - b.number);
  body.append(...keyed.map(({ row }) => row));
}

for (const table of tables) {
  for (const header of table.querySelectorAll("thead th")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(header));
    header.append(button);
  }
}

const openAll = document.querySelector("[data-action=open]");
openAll.addEventListener("click", () => {
  const open = openAll.textContent === "Show all SQL";
  for (const one of document.querySelectorAll("details")) one.open = open;
  openAll.textContent = open ? "Hide all SQL" : "Show all SQL";
});
form.addEventListener("input", filter);
form.addEventListener("reset", () => setTimeout(filter));
form.addEventListener("submit", (event) => event.preventDefault());
form.hidden = false;
filter();
