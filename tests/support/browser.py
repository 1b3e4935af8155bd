"""Chromium, and what a page is held to in it."""

import os
import shutil
from contextlib import contextmanager

import pytest

#: Elements whose text has less contrast than WCAG 2 AA asks.
PALE = r"""() => {
  const linear = (v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = (rgb) => .2126 * linear(rgb[0]) + .7152 * linear(rgb[1]) + .0722 * linear(rgb[2]);
  const read = (text) => text.match(/[\d.]+/g).map(Number);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const color = read(getComputedStyle(node).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const pale = (node) => {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || node.closest('option, script, style') || !node.getClientRects().length || node.disabled) return false;
    const [a, b] = [light(read(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    return (a + .05) / (b + .05) < 4.5;
  };
  return [...document.querySelectorAll('body *')].filter(pale).map((node) => node.outerHTML.slice(0, 100));
}"""


@contextmanager
def chromium():
    """A browser; without one the test is skipped, but with CI=true in the environment it fails."""
    from playwright.sync_api import Error, sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(f"needs chromium ({str(error).splitlines()[0]})")
        yield browser
        browser.close()
