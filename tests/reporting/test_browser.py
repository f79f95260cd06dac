"""The page in a real browser."""

import re

import pytest

from tests.reporting.browser import CHROMIUM, open_page
from tests.reporting.conftest import HOSTILE, write

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

HELPERS = """
const cards = () => [...document.querySelectorAll(".query")];
const more = document.querySelector(".more");
const shown = () => { while (!more.hidden) more.click(); return cards().map((card) => card.querySelector(".facts").textContent); };
const button = (kind, value) => document.querySelector(`button[data-${kind}="${value}"]`);
const pressed = (kind) => document.querySelector(`button[data-${kind}][aria-pressed=true]`).dataset[kind];
const counts = () => Object.fromEntries([...document.querySelectorAll("button[data-filter]")].map(
  (node) => [node.dataset.filter, node.querySelector(".count").textContent]));
const press = (key, target = document.body) => target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const search = (text) => {
  const box = document.querySelector("input[type=search]");
  box.value = text;
  box.dispatchEvent(new Event("input"));
};
"""

WIDTHS = """
const scrolls = ".scroll, .orders, pre";
const tooWide = (node) => node.getBoundingClientRect().right > innerWidth + 1 && !node.closest(scrolls);
const found = [...document.querySelectorAll("main *")].filter(tooWide).map((node) => node.outerHTML);
return { window: innerWidth, sideways: document.documentElement.scrollWidth > document.documentElement.clientWidth, found };
"""


def test_opens_without_errors_and_a_script_tag_stays_text(made, tmp_path):
    """Only cards near the window are there; an attack in a caption is shown letter by letter, and nothing else happens."""
    # All images ask, so the first card is that of the image whose caption is the attack.
    written = write(made, gallery={"queries": 42, "shown": 20}, output=tmp_path / "report.html", report=tmp_path / "report.json")
    seen = open_page(written.path, tmp_path)
    assert seen.console == []
    assert 8 <= seen.document.count('<article class="query"') < 56
    assert "<title>cprd-pipeline report</title>" in seen.document
    shown = HOSTILE.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f"<p>{shown}</p>" in seen.document
    gallery = seen.document[seen.document.index('<div id="queries">') : seen.document.index("</main>")]
    assert "<script" not in gallery
    assert "onerror" not in re.sub(r"<p>.*?</p>", "", gallery)


@pytest.fixture(scope="module")
def driven(written, tmp_path_factory):
    """What was seen at each step of one visit."""
    drive = f"""{HELPERS}
    const seen = {{ all: shown(), counts: counts() }};
    for (const {{ key }} of data()) {{ button("filter", key).click(); seen[key] = shown(); }}
    function data() {{ return JSON.parse(document.getElementById("gallery-data").textContent).filters; }}
    button("filter", "all").click(); button("direction", "t2i").click();
    seen.t2i = shown(); seen.t2iCounts = counts(); seen.pressed = button("direction", "t2i").getAttribute("aria-pressed");
    button("direction", "all").click();
    search("onerror BROKEN"); seen.search = shown(); seen.searchCounts = counts();
    search("no such words"); seen.nothing = shown(); seen.about = document.querySelector(".about").textContent;
    search("");
    press("2"); seen.second = pressed("filter");
    press("1"); press("d"); seen.d = pressed("direction");
    press("d"); press("d");
    press("j"); seen.j = cards().indexOf(document.activeElement);
    press("j"); press("j"); press("k"); seen.jjk = cards().indexOf(document.activeElement);
    for (let n = 0; n < 40; n++) press("j");
    seen.far = cards().indexOf(document.activeElement);
    press("/"); seen.slash = document.activeElement.type;
    press("d", document.activeElement); seen.typed = pressed("direction");
    press("Escape", document.activeElement); seen.left = document.activeElement.type ?? "nothing";
    press("?"); seen.help = document.querySelector("dialog").open; seen.keys = document.querySelectorAll("dialog dt").length;
    const item = cards()[0].querySelector("li");
    item.dispatchEvent(new PointerEvent("pointerover", {{ bubbles: true }}));
    seen.twins = cards()[0].querySelectorAll(".same").length;
    return seen;
    """
    seen = open_page(written.path, tmp_path_factory.mktemp("driven"), drive=drive)
    assert seen.console == []
    return seen.answer


def test_filters_show_their_queries(driven, written):
    """As many as the data say, in their order; the numbers on the buttons are those."""
    queries = written.data["queries"]
    for found in written.data["filters"]:
        shown = [re.search(r"· ([\w-]+?)first right answer", text)[1] for text in driven[found["key"]]]
        assert shown == [queries[row]["id"] for row in found["queries"]]
        assert driven["counts"][found["key"]] == str(len(found["queries"]))
    assert driven["fixed"]
    assert all("fixed by distillation" in text for text in driven["fixed"])


def test_the_direction_and_the_filter_work_together(driven, written):
    """Only captions that ask for images are left, and the other buttons count them alone."""
    assert len(driven["t2i"]) == 42
    assert all(text.startswith("text → image") for text in driven["t2i"])
    assert driven["pressed"] == "true"
    texts = {row for row, query in enumerate(written.data["queries"]) if query["direction"] == "t2i"}
    assert driven["t2iCounts"] == {found["key"]: str(len(texts & set(found["queries"]))) for found in written.data["filters"]}


def test_the_search_box_finds_captions(driven, written):
    """Every query on whose card all the words can be read, in large or small letters; nothing for words that nobody wrote."""
    data = written.data
    attack = data["texts"].index(HOSTILE)
    with_attack = [
        row
        for row, query in enumerate(data["queries"])
        if attack in ([item[0] for item in query["items"]] if query["direction"] == "i2t" else [query["asks"]])
    ]
    assert len(driven["search"]) == len(with_attack)
    assert 0 < len(with_attack) < 56
    assert driven["searchCounts"]["all"] == str(len(with_attack))
    assert driven["nothing"] == []
    assert driven["about"].endswith("Shown: 0.")


def test_the_keyboard_works(driven):
    """Filters by number, directions, cards forth and back and beyond those that were made; typing is left alone."""
    assert (driven["second"], driven["d"]) == ("fixed", "i2t")
    assert (driven["j"], driven["jjk"], driven["far"]) == (0, 1, 41)
    assert (driven["slash"], driven["typed"], driven["left"]) == ("search", "all", "nothing")
    assert driven["help"]
    assert driven["keys"] == 11


def test_an_item_is_marked_in_all_three_orders(driven):
    """While the pointer is on it; the small run's lists are shown whole, so it is in each."""
    assert driven["twins"] == 3


@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_is_wider_than_the_window(written, tmp_path, width):
    """Wide tables and the pipeline scroll by themselves; the page does not."""
    seen = open_page(written.path, tmp_path, drive=WIDTHS, width=width)
    assert seen.answer == {"window": width, "sideways": False, "found": []}
