"""Take the picture of a report that the README shows.

    python docs/images/make.py runs/demo/report.html

It needs Chromium and the `playwright` package of the `dev` extra.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

WIDTH, HEIGHT = 1280, 1400


def take(report: Path, picture: Path, *, height: int = HEIGHT, scheme: str = "light") -> None:
    """The top of the page as PNG, as a reader sees it before scrolling far."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(
            viewport={"width": WIDTH, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
        )
        page.set_default_timeout(300_000)
        page.goto(report.resolve().as_uri())
        page.wait_for_selector("html[data-facts][data-charts]")
        page.wait_for_timeout(300)  # fonts are laid out
        page.screenshot(path=picture)
        browser.close()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("report", type=Path)
    options.add_argument("picture", type=Path, nargs="?", default=Path(__file__).with_name("report.png"))
    options.add_argument("--height", type=int, default=HEIGHT)
    options.add_argument("--scheme", choices=("light", "dark"), default="light")
    given = options.parse_args()
    take(given.report, given.picture, height=given.height, scheme=given.scheme)


if __name__ == "__main__":
    main()
