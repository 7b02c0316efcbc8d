"""Notebooks in JupyterLab as a learner uses them: in Chromium, by mouse, in the light and in the dark theme.

`playwright` comes with the extra `test`. Its own browsers are not downloaded: the tests use the system's Chromium.
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
from urllib.request import urlopen

import pytest
from support.selected import slow_but

from notebooks.books import FOLDER, PATHS, Book

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

OPENED_PATHS = [path for path in PATHS if path.name[:2] in ("00", "05")]  # the first, and the one with the most plots
RUN_TIMEOUT_S, START_TIMEOUT_S, RUN_ATTEMPTS = 240, 20, 3
JUPYTERLAB_SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # all cells are in the page, not only the visible ones
}
# The kernel of the open notebook can run cells: before that, JupyterLab silently ignores "Run All Cells".
KERNEL_IS_READY = """() => {
    const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
    return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
RUN_HAS_STARTED = """() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].some(
    prompt => /\\[(\\*|\\d+)\\]/.test(prompt.textContent))"""
# JupyterLab renders an error with the MIME type of an error or of stderr, depending on its version.
TROUBLE = "[data-mime-type='application/vnd.jupyter.error'], [data-mime-type='application/vnd.jupyter.stderr']"
RUN_HAS_ENDED = """([cellCount, trouble]) => document.querySelector(trouble) !== null
    || [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].at(-1).textContent.trim() === `[${cellCount}]:`"""
THEME_IS_SHOWN = """isLight => {
    const [r, g, b] = getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor.match(/\\d+/g);
    return (Number(r) + Number(g) + Number(b) > 3 * 128) === isLight;
}"""
# The contrast ratio of an element's text and its background, as the Web Content Accessibility Guidelines define it.
CONTRAST = """element => {
    const channels = text => text.match(/[\\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => {
        const part = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
    };
    let background = [255, 255, 255];
    for (let ancestor = element; ancestor; ancestor = ancestor.parentElement) {
        const color = channels(getComputedStyle(ancestor).backgroundColor);
        if (color.length < 4 || color[3] > 0.5) { background = color; break; }
    }
    const text = channels(getComputedStyle(element).color);
    const [lighter, darker] = [luminance(text), luminance(background)].sort((a, b) => b - a);
    return (lighter + 0.05) / (darker + 0.05);
}"""
MIN_CONTRAST = 4.5
TEXTS = {
    "heading": ".jp-RenderedMarkdown h2",
    "paragraph": ".jp-RenderedMarkdown p",
    "table in Markdown": ".jp-RenderedMarkdown td",
    "code in Markdown": ".jp-RenderedMarkdown code",
    "folded solution": ".jp-RenderedMarkdown summary",
    "printed output": ".jp-OutputArea-output pre",
    "DataFrame": ".jp-RenderedHTML td",
    "verdict": ".jp-OutputArea-output.jp-RenderedMarkdown p",
}


@pytest.fixture
def lab_url(kernel_environment: None, tmp_path: Path) -> Iterator[str]:
    """Start JupyterLab on a copy of the notebooks (it saves by itself) and yield its URL with a place for {name}."""
    shutil.copytree(FOLDER, tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    for name, values in JUPYTERLAB_SETTINGS.items():
        settings_path = tmp_path / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        settings_path.parent.mkdir(parents=True, exist_ok=True)
        settings_path.write_text(json.dumps(values))
    with closing(socket.socket()) as free_socket:
        free_socket.bind(("127.0.0.1", 0))
        port = free_socket.getsockname()[1]
    token = secrets.token_hex(16)
    folders = {
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "work",
        "JUPYTER_CONFIG_DIR": "config",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"]
    log_path = tmp_path / "lab.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--ServerApp.root_dir={tmp_path}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {name: str(tmp_path / folder) for name, folder in folders.items()},
        )
    try:
        wait_for_server(f"http://127.0.0.1:{port}/api/status?token={token}", process, log_path)
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks/{{name}}?token={token}"
    finally:
        process.terminate()
        process.wait(30)


def wait_for_server(url: str, process: subprocess.Popen[bytes], log_path: Path, timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start within {timeout_s} s:\n{log_path.read_text()}")


@pytest.fixture(params=slow_but(OPENED_PATHS[:1], OPENED_PATHS, slow=[]), ids=lambda path: path.stem)
def book(request: pytest.FixtureRequest) -> Book:
    return Book(request.param)


@pytest.fixture
def page(lab_url: str, book: Book) -> Iterator["playwright.Page"]:
    """The notebook in JupyterLab, with all its cells and a connected, idle kernel."""
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(60_000)
        page.goto(lab_url.format(name=book.path.name))
        page.locator(".jp-Notebook .jp-CodeCell").nth(len(book.code_cells) - 1).wait_for(state="attached")
        page.wait_for_function(KERNEL_IS_READY)
        yield page
        browser.close()


def choose(page: "playwright.Page", menu: str, item: str) -> None:
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{menu}$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{item}$")).click()


def run_all_cells(page: "playwright.Page") -> None:
    """Choose Run All Cells, again if no cell starts."""
    for _ in range(RUN_ATTEMPTS):
        page.wait_for_function(KERNEL_IS_READY)
        choose(page, "Run", "Run All Cells")
        try:
            page.wait_for_function(RUN_HAS_STARTED, timeout=START_TIMEOUT_S * 1000)
            return
        except playwright.TimeoutError:
            continue
    pytest.fail(f"No cell started within {START_TIMEOUT_S} s after Run All Cells, {RUN_ATTEMPTS} times.")


def test_notebook_in_jupyterlab(page: "playwright.Page", book: Book) -> None:
    """Run All gives all outputs without an error, pictures and folded solutions work, and text is readable."""
    outputs = page.locator(".jp-OutputArea-output")
    output_count = sum(len(cell.outputs) for cell in book.code_cells)
    choose(page, "Edit", "Clear Outputs of All Cells")
    playwright.expect(outputs).to_have_count(0)
    run_all_cells(page)
    page.wait_for_function(RUN_HAS_ENDED, arg=[len(book.code_cells), TROUBLE], timeout=RUN_TIMEOUT_S * 1000)

    assert page.locator(TROUBLE).all_text_contents() == []
    playwright.expect(outputs).to_have_count(output_count, timeout=60_000)  # the page lags behind the kernel
    assert page.locator(TROUBLE).all_text_contents() == []

    plots = page.locator(".jp-OutputArea-output img")
    plot_count = sum("image/png" in output.get("data", {}) for cell in book.code_cells for output in cell.outputs)
    assert plots.count() == plot_count
    pictures = page.locator(".jp-Notebook img")
    assert pictures.count() > plot_count  # the drawing at the top as well
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        assert picture.is_visible()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") >= 500

    solutions = page.locator("details", has=page.locator("summary", has_text=re.compile("^Solution$")))
    assert solutions.count() == len(list(book.exercises()))
    for solution in solutions.all():
        code = solution.locator("pre")
        assert not code.is_visible()
        solution.locator("summary").click()
        playwright.expect(code).to_be_visible()
        solution.locator("summary").click()
        playwright.expect(code).not_to_be_visible()

    for theme, is_light in (("JupyterLab Light", True), ("JupyterLab Dark", False)):
        page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        page.wait_for_function(THEME_IS_SHOWN, arg=is_light)
        contrasts = {text: page.locator(selector).first.evaluate(CONTRAST) for text, selector in TEXTS.items()}
        assert min(contrasts.values()) >= MIN_CONTRAST, (theme, contrasts)
