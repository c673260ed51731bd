
// A click on a column's head sorts its table: numbers from the largest, words from A, a second click the other way
// round. A cell without a number stays at the end.
function valueOf(row, column) {
  const text = row.cells[column].textContent.trim();
  if (!row.cells[column].classList.contains("number")) return text;
  return parseFloat(text.replace("−", "-").replace(/^[+<] ?/, ""));
}

function compare(a, b, sign) {
  if (typeof a === "string") return sign * a.localeCompare(b, "en", { numeric: true });
  if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
  return sign * (a - b);
}

function sort(head) {
  const body = head.closest("table").tBodies[0];
  const [first, second] = head.classList.contains("number") ? ["descending", "ascending"] : ["ascending", "descending"];
  const direction = head.getAttribute("aria-sort") === first ? second : first;
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const column = head.cellIndex;
  body.append(...[...body.rows].sort((a, b) => compare(valueOf(a, column), valueOf(b, column), sign)));
}

for (const head of document.querySelectorAll("thead th")) {
  head.tabIndex = 0;
  head.addEventListener("click", () => sort(head));
  head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(head); });
}
