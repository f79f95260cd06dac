"""A page in a headless Chromium, driven by a script of the test."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


@dataclass(frozen=True)
class Seen:
    """What the browser made of a page.

    Args:
        document: The document after its scripts ran.
        console: What was said in the console.
        answer: What the driving script returned; None without one.
    """

    document: str
    console: list[str]
    answer: Any


def open_page(page: Path, folder: Path, *, drive: str = "", width: int = 1200) -> Seen:
    """Open a page in a window of 1200 x 900 pixels.

    Args:
        page: The file.
        folder: For the browser's profile and the driven copy.
        drive: Body of a function that runs after the page's own script; what it returns must be JSON.
        width: Of the frame that a driven page is in: Chromium's windows are never narrower than 500 pixels.
    """
    shown = _driven(page, folder, drive, width) if drive else page
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'browser'}"]
    command += ["--no-first-run", "--disable-extensions", "--disable-dev-shm-usage", "--enable-logging=stderr"]
    command += ["--virtual-time-budget=3000", "--window-size=1200,900", "--dump-dom", shown.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    found = re.search(r"<pre>(.*)</pre>", done.stdout, re.DOTALL) if drive else None
    answer = json.loads(html.unescape(found[1])) if found else None
    return Seen(done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line], answer)


def _driven(page: Path, folder: Path, drive: str, width: int) -> Path:
    """A frame around a copy of the page, which writes down what the copy's script returns."""
    # Run by the test in the page's name, so it has to be allowed beside the page's own script.
    text = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", page.read_text(encoding="utf-8"))
    script = f"<script>(async () => {{ {drive} }})().then((answer) => parent.postMessage(JSON.stringify(answer), '*'))</script>"
    (folder / "driven.html").write_text(text.replace("</body>", f"{script}</body>"), encoding="utf-8")
    frame = f'<iframe src="driven.html" style="width: {width}px; height: 900px; border: 0"></iframe>'
    write_down = "onmessage = ({ data }) => { document.querySelector('pre').textContent = data; };"
    outer = folder / "frame.html"
    outer.write_text(f"<!doctype html><pre></pre><script>{write_down}</script>{frame}", encoding="utf-8")
    return outer
