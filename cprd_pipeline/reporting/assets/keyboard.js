// Keys for those who show the page to others; none of them while somebody types.
const keys = [
  ["j", "next query", () => stepBy(1)],
  ["k", "previous query", () => stepBy(-1)],
  ["d", "other direction", () => choose({ direction: DIRECTIONS[(DIRECTIONS.indexOf(chosen.direction) + 1) % DIRECTIONS.length] })],
  ...data.filters.map(({ key, label }, number) => [String(number + 1), label, () => choose({ filter: key })]),
  ["/", "search", () => searchBox.focus()],
  ["?", "this help", () => help.showModal()],
];

const help = make("dialog", "",
  make("h3", "", "Keys"),
  make("dl", "", ...keys.map(([key, what]) => make("div", "", make("dt", "", make("kbd", "", key)), make("dd", "", what)))),
  make("p", "muted", "Esc closes this and leaves the search."));
help.addEventListener("click", () => help.close());

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (event.target === searchBox) {
    if (event.key === "Escape") searchBox.blur();
    return;
  }
  const found = keys.find(([key]) => key === event.key);
  if (!found) return;
  event.preventDefault();
  found[2]();
});

const helpButton = make("button", "help", "keys ?");
helpButton.type = "button";
helpButton.addEventListener("click", () => help.showModal());
controls.append(helpButton);
document.getElementById("queries").append(controls, about, list, more, help);
choose({});
