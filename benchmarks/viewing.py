"""Row 26: how long a browser takes to open the page of a large network."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from harness import Line
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from nnas_core.space.choice import Choice
from nnas_core.space.search_space import SearchSpace
from nnas_core.viewing.page import page_of
from nnas_core.viewing.view import Epoch, View

CHOICES, EPOCHS = 1000, 50
OPERATIONS = ("conv3x3", "conv5x5", "separable3x3", "separable5x5", "max_pool", "avg_pool", "skip", "none")


def network() -> SearchSpace:
    """Cells of four layer choices of eight candidates, and an input choice among the eight choices before it."""
    choices: list[Choice] = []
    for number in range(CHOICES):
        if number % 5 == 4:
            inputs = tuple(choice.key for choice in choices[-8:])
            choices.append(Choice(f"cell{number // 5:03}.inputs", "input_choice", inputs, 2))
        else:
            choices.append(Choice(f"cell{number // 5:03}.op{number % 5}", "layer_choice", OPERATIONS, 1))
    return SearchSpace(choices)


def page() -> str:
    """The page of a search with the weights of all epochs."""
    space, rng = network(), np.random.default_rng(0)
    epochs = [
        Epoch(
            number,
            {"loss": 1 / number},
            {"loss": 1 / number, "accuracy": 1 - 1 / number},
            {choice.key: rng.dirichlet(np.ones(len(choice.candidates))).round(4).tolist() for choice in space},
        )
        for number in range(1, EPOCHS + 1)
    ]
    weights = epochs[-1].weights
    return page_of(View("search", "large", space, (), space.sample(rng), weights, "decision weights", epochs))


def row_26(rounds: int) -> Iterator[Line]:
    """From the navigation to the end of all scripts, by the browser's own clock."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "page.html"
            path.write_text(page(), encoding="utf-8")
            values = []
            for _ in range(rounds):
                driver.get(path.as_uri())
                milliseconds = "return performance.getEntriesByType('navigation')[0].loadEventEnd"
                values.append(float(driver.execute_script(milliseconds)))
            size = f"{path.stat().st_size / 2**20:.1f} MiB"
    finally:
        driver.quit()
    yield Line(
        26, f"opening the page of a search of {CHOICES:,} choices, {EPOCHS} epochs", "ms", 2000, values, note=size
    )
