"""Notebooks in JupyterLab, as a learner meets them: in Chromium, by mouse, in the light and in the dark theme.

`playwright` comes with the extra `test`; its browsers aren't downloaded, the system's Chromium does.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from notebooks.books import FOLDER, PATHS, Book

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

OPENED = [path for path in PATHS if path.name[:2] in ("00", "05")]  # the first, and the one with the most plots
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # all cells are in the page, not only those in view
}
# The contrast of an element's text with what is behind it, as the Web Content Accessibility Guidelines count it.
CONTRAST = """element => {
    const channels = text => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const part = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
    };
    let behind = [255, 255, 255];
    for (let above = element; above; above = above.parentElement) {
        const color = channels(getComputedStyle(above).backgroundColor);
        if (color.length < 4 || color[3] > 0.5) { behind = color; break; }
    }
    const [one, other] = [light(channels(getComputedStyle(element).color)), light(behind)].sort((a, b) => b - a);
    return (one + 0.05) / (other + 0.05);
}"""
TEXTS = {
    "a heading": ".jp-RenderedMarkdown h2",
    "a paragraph": ".jp-RenderedMarkdown p",
    "a table of the text": ".jp-RenderedMarkdown td",
    "code in the text": ".jp-RenderedMarkdown code",
    "a folded solution": ".jp-RenderedMarkdown summary",
    "printed output": ".jp-OutputArea-output pre",
    "a DataFrame": ".jp-RenderedHTML td",
    "a verdict": ".jp-OutputArea-output.jp-RenderedMarkdown p",
}


@pytest.fixture
def lab(kernels: None, tmp_path: Path) -> Iterator[str]:
    """The address of the notebooks' folder in a JupyterLab of its own, which works on a copy: it saves by itself."""
    shutil.copytree(FOLDER, tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    for name, values in SETTINGS.items():
        file = tmp_path / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    folders = {
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "work",
        "JUPYTER_CONFIG_DIR": "config",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"]
    with open(tmp_path / "lab.log", "wb") as log:
        process = subprocess.Popen(
            [*command, f"--ServerApp.root_dir={tmp_path}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {name: str(tmp_path / folder) for name, folder in folders.items()},
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", tmp_path / "lab.log")
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks/{{name}}?token={token}"
    finally:
        process.terminate()
        process.wait(30)


def wait_for(address: str, log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            return urlopen(address, timeout=5).close()
        except (URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"JupyterLab didn't start:\n{log.read_text()}")


@pytest.fixture(params=OPENED, ids=lambda path: path.stem)
def book(request: pytest.FixtureRequest) -> Book:
    return Book(request.param)


@pytest.fixture
def page(lab: str, book: Book) -> Iterator["playwright.Page"]:
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(60_000)
        page.goto(lab.format(name=book.path.name))
        page.locator(".jp-Notebook .jp-CodeCell").nth(len(book.code) - 1).wait_for(state="attached")
        # Until there is a kernel, Run does nothing.
        page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for(state="attached")
        yield page
        browser.close()


def choose(page: "playwright.Page", menu: str, item: str) -> None:
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{menu}$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{item}$")).click()


def test_run_in_jupyterlab(page: "playwright.Page", book: Book) -> None:
    outputs = page.locator(".jp-OutputArea-output")
    shown = sum(len(cell.outputs) for cell in book.code)
    choose(page, "Edit", "Clear Outputs of All Cells")
    playwright.expect(outputs).to_have_count(0)
    choose(page, "Run", "Run All Cells")
    last = page.locator(".jp-CodeCell .jp-InputPrompt").nth(len(book.code) - 1)
    playwright.expect(last).to_have_text(f"[{len(book.code)}]:", timeout=240_000)

    playwright.expect(outputs).to_have_count(shown, timeout=60_000)  # the page lags behind the kernel
    for trouble in ("error", "stderr"):
        playwright.expect(page.locator(f"[data-mime-type='application/vnd.jupyter.{trouble}']")).to_have_count(0)

    plots = page.locator(".jp-OutputArea-output img")
    assert plots.count() == sum("image/png" in output.get("data", {}) for cell in book.code for output in cell.outputs)
    pictures = page.locator(".jp-Notebook img")
    assert pictures.count() > plots.count()  # the drawing at the beginning, too
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        assert picture.is_visible()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") >= 500

    solutions = page.locator("details", has=page.locator("summary", has_text=re.compile("^Solution$")))
    assert solutions.count() == len(list(book.tasks()))
    for solution in solutions.all():
        code = solution.locator("pre")
        assert not code.is_visible()
        solution.locator("summary").click()
        playwright.expect(code).to_be_visible()
        solution.locator("summary").click()
        playwright.expect(code).not_to_be_visible()

    for theme, is_light in (("JupyterLab Light", "true"), ("JupyterLab Dark", "false")):
        page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        page.locator(f"body[data-jp-theme-light='{is_light}']").wait_for(state="attached")
        page.wait_for_timeout(500)  # the theme's colours come with its style sheet
        contrasts = {what: page.locator(where).first.evaluate(CONTRAST) for what, where in TEXTS.items()}
        assert min(contrasts.values()) >= 4.5, (theme, contrasts)
