// Direction, kind and words: a query is shown when it passes all three.
const DIRECTIONS = ["all", "i2t", "t2i"];
const chosen = { direction: "all", filter: "all", words: [] };
const about = make("p", "about muted");
about.setAttribute("aria-live", "polite");

const buttons = (kind, title, choices) => {
  const group = make("div", "choice", ...choices.map(([value, label]) => {
    const button = make("button", "", label);
    button.type = "button";
    button.dataset[kind] = value;
    button.addEventListener("click", () => choose({ [kind]: value }));
    return button;
  }));
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", title);
  return group;
};

const searchBox = make("input");
searchBox.type = "search";
searchBox.placeholder = "search captions and ids";
searchBox.setAttribute("aria-label", "search captions and ids");
searchBox.addEventListener("input", () => choose({ words: searchBox.value.toLowerCase().split(/\s+/).filter(Boolean) }));

// All that can be read on a card, made when it is first searched.
const readable = [];
const read = ({ direction, id, asks, items }) => {
  const numbers = direction === "i2t" ? items.map(([number]) => number) : [asks];
  return [id, ...numbers.map((number) => data.texts[number])].join("\n").toLowerCase();
};
const textOf = (number) => readable[number] ??= read(data.queries[number]);

const passes = (number, direction) =>
  (direction === "all" || data.queries[number].direction === direction) &&
  chosen.words.every((word) => textOf(number).includes(word));

const choose = (change) => {
  Object.assign(chosen, change);
  const filter = data.filters.find(({ key }) => key === chosen.filter);
  const found = filter.queries.filter((number) => passes(number, chosen.direction));
  for (const button of controls.querySelectorAll("button[data-filter], button[data-direction]")) {
    const { filter: key, direction } = button.dataset;
    const count = key ? data.filters.find((other) => other.key === key).queries.filter((n) => passes(n, chosen.direction)).length
      : filter.queries.filter((n) => passes(n, direction)).length;
    button.setAttribute("aria-pressed", String(key ? key === chosen.filter : direction === chosen.direction));
    button.querySelector("span").textContent = count.toLocaleString("en");
  }
  about.replaceChildren(filter.about, make("span", "", ` Shown: ${found.length.toLocaleString("en")}.`));
  showQueries(found);
};

const counted = (label) => {
  const node = make("span", "count");
  const both = document.createDocumentFragment();
  both.append(label, " ", node);
  return both;
};
const controls = make("div", "filters",
  buttons("direction", "direction", DIRECTIONS.map((value) => [value, counted(arrows[value] ?? "both directions")])),
  buttons("filter", "which queries", data.filters.map(({ key, label }) => [key, counted(label)])),
  searchBox);
