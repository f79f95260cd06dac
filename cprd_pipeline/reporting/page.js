"use strict";
// Lays out the gallery from the JSON in the page. Text of the corpus only ever goes through textContent.
(() => {
  const data = JSON.parse(document.getElementById("gallery-data").textContent);
  const gallery = document.getElementById("gallery");

  const make = (tag, className, ...children) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    node.append(...children);
    return node;
  };

  // What is shown is a text, or the number of an image.
  const show = (what) => {
    if (typeof what === "string") return make("p", "", what);
    const picture = make("img");
    picture.loading = "lazy";
    picture.decoding = "async";
    picture.alt = "";
    picture.src = data.images[what];
    return picture;
  };

  // How far an item moved from the miner's order; coloured only where up is known to be right.
  const movement = (place, mined, positive) => {
    if (place === mined) return make("small", "");
    const up = place < mined;
    return make("small", positive ? (up ? "up" : "down") : "", `${up ? "▲" : "▼"}${Math.abs(place - mined)}`);
  };

  const listItem = ([what, value, positive, mined], index, order) => {
    const place = make("span", "place", positive ? "✓" : String(index + 1));
    place.title = positive ? `place ${index + 1}, annotated positive` : `place ${index + 1}`;
    const moved = order > 0 ? movement(index + 1, mined, positive) : make("small", "");
    const worth = make("span", "value", value.toFixed(order === 1 ? 2 : 3));
    const node = make("li", positive ? "positive" : "", place, show(what), moved, worth);
    node.dataset.mined = mined;
    return node;
  };

  const orderColumn = (order, index) => {
    const { title, note } = data.orders[index];
    const place = order.positive_at === null ? "no positive" : `first positive at ${order.positive_at}`;
    const heading = make("h3", "", title, make("span", "", note), make("span", "", place));
    return make("div", "", heading, make("ol", "", ...order.items.map((item, place) => listItem(item, place, index))));
  };

  const fill = (card, query) => {
    const arrow = query.direction === "i2t" ? "image → text" : "text → image";
    const asked = make("div", "asked", show(query.shows), make("p", "muted", `${arrow} · ${query.id}`));
    const kind = query.direction === "t2i" ? "orders pictures" : "orders";
    card.append(asked, make("div", kind, ...query.orders.map(orderColumn)));
  };

  // The same item is marked in all three orders while the pointer is on it.
  const mark = (event) => {
    const card = event.target.closest(".query");
    const item = event.target.closest("li");
    if (!card) return;
    card.querySelectorAll(".same").forEach((node) => node.classList.remove("same"));
    if (item) card.querySelectorAll(`li[data-mined="${item.dataset.mined}"]`).forEach((node) => node.classList.add("same"));
  };
  gallery.addEventListener("pointerover", mark);
  gallery.addEventListener("pointerout", mark);

  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      fill(target, data.queries[target.dataset.number]);
    }
  }, { rootMargin: "1000px" });

  const cards = data.queries.map((query, number) => {
    const card = make("article", "query");
    card.dataset.number = number;
    // The first ones at once: they are what is seen, printed or photographed first.
    if (number < 4) fill(card, query);
    else near.observe(card);
    return card;
  });

  const filters = [["all", "all"], ["i2t", "image → text"], ["t2i", "text → image"]].map(([direction, label]) => {
    const count = data.queries.filter((query) => direction === "all" || query.direction === direction).length;
    const button = make("button", "", `${label} (${count})`);
    button.type = "button";
    button.setAttribute("aria-pressed", String(direction === "all"));
    button.addEventListener("click", () => {
      filters.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      cards.forEach((card, number) => { card.hidden = direction !== "all" && data.queries[number].direction !== direction; });
    });
    return button;
  });
  gallery.append(make("div", "filters", ...filters), ...cards);
})();
