// From the JSON in the page to one query's card. Text of the corpus only ever goes in as text nodes.
const data = JSON.parse(document.getElementById("gallery-data").textContent);
const POSITIVE = 1, ABOVE = 2;
const arrows = { i2t: "image → text", t2i: "text → image" };

const make = (tag, className, ...children) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
};

const picture = (number, alternative) => {
  const node = make("img");
  node.decoding = "async";
  node.alt = alternative;
  node.src = data.images[number];
  return node;
};

const signed = (value, digits) => value.toFixed(digits).replace("-", "\u2212");

const place = (mark, number) => {
  const symbol = mark & POSITIVE ? "✓" : mark & ABOVE ? "?" : String(number);
  const node = make("span", "place", symbol);
  node.title = `place ${number}`;
  return node;
};

// How far an item moved from the miner's order; coloured only where up is known to be right.
const movement = (mark, mined, now) => {
  if (mined === now) return make("small", "");
  const up = now < mined;
  return make("small", mark & POSITIVE ? (up ? "up" : "down") : "", `${up ? "▲" : "▼"}${Math.abs(now - mined)}`);
};

// An item: number, mark, its value by each of the three, its place by each of the three.
const listItem = (query, item, who) => {
  const [number, mark] = item;
  const shown = query.direction === "i2t" ? make("p", "", data.texts[number]) : picture(number, `place ${item[5 + who]}`);
  const value = make("span", "value", signed(item[2 + who], who === 1 ? 2 : 3));
  const node = make("li", mark & POSITIVE ? "positive" : mark & ABOVE ? "above" : "",
    place(mark, item[5 + who]), shown, movement(mark, item[5], item[5 + who]), value);
  node.dataset.mined = item[5];
  return node;
};

const column = (query, who) => {
  const { title, note } = data.orders[who];
  const sorted = [...query.items].sort((one, other) => one[5 + who] - other[5 + who]);
  const shown = sorted.filter((item) => item[5 + who] <= data.shown);
  const heading = make("h4", "", title, make("span", "", note));
  return make("div", "", heading, make("ol", "", ...shown.map((item) => listItem(query, item, who))));
};

const labels = data.filters.slice(1).map(({ key, label, queries }) => ({ key, label, members: new Set(queries) }));

const facts = (query, number) => {
  const [before, after] = query.ranks;
  const parts = [`${arrows[query.direction]} · ${query.id}`];
  if (before) parts.push(`first right answer: ${data.orders[0].title} ${before} → ${data.orders[2].title} ${after}`);
  if (query.agreement !== null) parts.push(`teacher and student agree: ${signed(query.agreement, 2)}`);
  const badges = labels.filter(({ members }) => members.has(number)).map(({ key, label }) => make("span", `badge ${key}`, label));
  return make("div", "facts", ...parts.map((part) => make("span", "", part)), ...badges);
};

const makeCard = (number) => {
  const query = data.queries[number];
  const image = query.direction === "i2t";
  const asks = make("h3", "asked", image ? picture(query.asks, `query ${query.id}`) : data.texts[query.asks]);
  const columns = make("div", image ? "orders" : "orders pictures", ...[0, 1, 2].map((who) => column(query, who)));
  const card = make("article", "query", make("div", image ? "top" : "top text", asks, facts(query, number)), columns);
  card.tabIndex = -1;
  return card;
};
