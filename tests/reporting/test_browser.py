"""The page in a real browser."""

import re
import shutil
import subprocess

import pytest

from cprd_pipeline.reporting.run import run
from tests.reporting.conftest import HOSTILE

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


# All images ask, so the first card is that of the image whose caption is the attack.
GALLERY = {"queries": 14, "shown": 20}


def open_in_browser(page, folder, script=""):
    """The page's document after its script ran, and what the browser's console said."""
    if script:
        # Run by the test in the page's name, so it has to be allowed beside the page's own script.
        text = page.read_text(encoding="utf-8")
        text = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", text)
        page = page.with_name("driven.html")
        page.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'browser'}"]
    command += ["--no-first-run", "--disable-extensions", "--disable-dev-shm-usage", "--enable-logging=stderr"]
    command += ["--virtual-time-budget=3000", "--window-size=1200,900", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_opens_without_errors_and_a_script_tag_stays_text(made, settings_of, tmp_path):
    """A card for every query, laid out when near the window; an attack in a caption is shown letter by letter, nothing else."""
    run(settings := settings_of(made, gallery=GALLERY))
    document, console = open_in_browser(settings.output, tmp_path)
    assert console == []
    assert document.count('<article class="query"') == 28
    assert 4 <= document.count('<div class="asked">') < 28
    assert "<title>cprd-pipeline report</title>" in document
    shown = HOSTILE.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f"<p>{shown}</p>" in document
    gallery = document[document.index('<div id="gallery">') : document.index("</main>")]
    assert "<script" not in gallery
    assert "onerror" not in re.sub(r"<p>.*?</p>", "", gallery)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_direction_filter_works(made, settings_of, tmp_path):
    """Only captions that ask for images are left, and the button says that it is pressed."""
    run(settings := settings_of(made, gallery=GALLERY))
    press = "[...document.querySelectorAll('button')].find((b) => b.textContent.startsWith('text')).click();"
    document, console = open_in_browser(settings.output, tmp_path, press)
    assert console == []
    assert len(re.findall(r'<article class="query"[^>]* hidden=""', document)) == 14
    assert re.search(r'aria-pressed="true">text → image \(14\)<', document)
    assert re.search(r'aria-pressed="false">all \(28\)<', document)
