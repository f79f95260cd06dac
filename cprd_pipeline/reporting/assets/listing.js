// The cards of the queries that the filters let through, made a few at a time as they come near the window.
const STEP = 8;
const list = make("div", "list");
const more = make("button", "more");
more.type = "button";
let waiting = [];

const append = () => {
  list.append(...waiting.splice(0, STEP).map(makeCard));
  more.hidden = waiting.length === 0;
  more.textContent = `show more (${waiting.length} left)`;
};

const near = new IntersectionObserver(([entry]) => {
  if (!entry.isIntersecting) return;
  append();
  // Watched anew, or nothing would be said while the button stays in view.
  near.unobserve(more);
  near.observe(more);
}, { rootMargin: "1000px" });
near.observe(more);
more.addEventListener("click", append);

const showQueries = (numbers) => {
  waiting = numbers.slice();
  list.replaceChildren();
  append();
};

// The same item is marked in all three orders while the pointer is on it.
const mark = ({ target }) => {
  list.querySelectorAll(".same").forEach((node) => node.classList.remove("same"));
  const item = target.closest("li");
  const twins = item ? item.closest(".query").querySelectorAll(`li[data-mined="${item.dataset.mined}"]`) : [];
  twins.forEach((node) => node.classList.add("same"));
};
list.addEventListener("pointerover", mark);
list.addEventListener("pointerleave", mark);

// To the card after or before the one that has the focus, or else the one at the top of the window.
const stepBy = (step) => {
  const cards = [...list.children];
  let at = cards.indexOf(document.activeElement.closest(".query"));
  if (at < 0) at = cards.findIndex((card) => card.getBoundingClientRect().bottom > 0) - (step > 0 ? 1 : 0);
  if (at + step >= list.children.length) append();
  const card = list.children[Math.max(at + step, 0)];
  if (!card) return;
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "start" });
};
