"""The page in a real browser: sorting, filtering, slider, keyboard, both colour schemes, 360 pixels, hostile names."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from nnas_core.viewing import layout, serving
from nnas_core.viewing.page import page_of
from nnas_core.viewing.serving import Server
from nnas_core.viewing.view import View
from tests.viewing.sample_views import HOSTILE, hostile_view, search_view, study_view, weights_at

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    """One browser for all tests."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


class Browser:
    """A page that is open."""

    def __init__(self, driver: webdriver.Chrome, folder: Path) -> None:
        self.driver, self.folder = driver, folder

    def show(self, view: View, *, width: int = 1200, scheme: str = "light") -> None:
        """Open the page of a view."""
        path = self.folder / "page.html"
        path.write_text(page_of(view), encoding="utf-8")
        self.open(path.as_uri(), width=width, scheme=scheme)

    def open(self, address: str, *, width: int = 1200, scheme: str = "light") -> None:
        """Open an address, and wait until its scripts have run."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.scheme(scheme)
        self.driver.get(address)
        assert self.run("return document.documentElement.dataset.ready") == "yes"
        if self.run("return document.querySelector('.box') !== null"):  # what is in sight is drawn a little later
            WebDriverWait(self.driver, 5, 0.02).until(lambda _: self.texts("#c0 .number"))

    def scheme(self, name: str) -> None:
        """Prefer light or dark colours."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def run(self, script: str, *arguments: object) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def __call__(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that a selector names."""
        found: list[str] = self.run(
            "return Array.from(document.querySelectorAll(arguments[0]), (one) => one.textContent)", selector
        )
        return found

    @property
    def focused(self) -> WebElement:
        """What has the keyboard."""
        return self.driver.switch_to.active_element


@pytest.fixture
def browser(chromium: webdriver.Chrome, tmp_path: Path) -> Iterator[Browser]:
    """A browser; the test fails if the page writes errors or warnings to the console."""
    chromium.get("about:blank")
    chromium.get_log("browser")
    yield Browser(chromium, tmp_path)
    assert chromium.get_log("browser") == []


def column(browser: Browser, place: int) -> list[str]:
    """The cells of a column of the table of trials."""
    return browser.texts(f"#trials tbody td:nth-child({place})")


def test_trials_are_sorted_by_any_column_with_the_keyboard(browser: Browser) -> None:
    browser.show(study_view())
    values = [float(7 * one % 250) for one in range(250) if one % 10]
    best = [f"{value:g}" for value in sorted(values, reverse=True)]
    assert column(browser, 3) == best[:100]
    assert browser.texts("#count") == ["1 to 100 of 250 listed; the study has 100,000 trials"]
    header = browser("#trials th[data-id=value] button")
    header.send_keys(Keys.ENTER)
    assert column(browser, 3) == best[::-1][:100]
    assert browser("#trials th[data-id=value]").get_attribute("aria-sort") == "ascending"
    header.send_keys(Keys.TAB)
    browser.focused.send_keys(Keys.SPACE)  # the next column: how long it took
    assert column(browser, 1)[:3] == ["249", "248", "247"]
    assert browser("#trials th[data-id=value]").get_attribute("aria-sort") == "none"
    browser("#later").send_keys(Keys.ENTER)
    browser("#later").send_keys(Keys.ENTER)
    assert column(browser, 1) == [str(one) for one in range(49, -1, -1)]
    assert not browser("#later").is_enabled()
    browser("#trials th[data-id=trial] button").click()
    assert column(browser, 1) == [str(one) for one in range(100)]


def test_trials_are_filtered_by_text_and_state(browser: Browser) -> None:
    browser.show(study_view())
    browser("#filter").send_keys("trial 24")
    assert sorted(column(browser, 1)) == ["240"]
    assert browser.texts("#count")[0].startswith("1 to 1 of 1 ")
    browser("#filter").clear()
    browser("#filter").send_keys("b.op=skip")
    assert all(int(one) % 2 for one in column(browser, 1))
    Select(browser("#state")).select_by_visible_text("failed")
    assert column(browser, 1) == []  # every tenth failed
    assert browser.texts("#count")[0].startswith("none")
    browser("#filter").clear()
    browser("#filter").send_keys(" ", Keys.BACK_SPACE)
    assert {int(one) % 10 for one in column(browser, 1)} == {0}
    Select(browser("#state")).select_by_visible_text("infeasible")
    assert sorted(map(int, column(browser, 1))) == [7, 57, 107, 157, 207]
    browser.run("view.trials.counts.stopped = 1; trials()")  # as news of a study that goes on may have it
    states = Select(browser("#state"))
    assert [one.text for one in states.options] == ["all", "failed", "infeasible", "succeeded", "stopped"]
    assert states.first_selected_option.text == "infeasible"


def test_a_trial_is_drawn_and_the_best_one_again(browser: Browser) -> None:
    browser.show(study_view())
    chosen = "#c0 .flow.chosen"
    assert browser(chosen).get_attribute("data-c") == "0.0"
    browser("#trials th[data-id=trial] button").click()
    browser("#trials tbody tr:nth-child(3) button").send_keys(Keys.ENTER)
    assert browser(chosen).get_attribute("data-c") == "0.2"
    assert "In colour: trial 2." in browser("#legend").text
    assert browser.focused.get_attribute("id") == "graph"
    browser("#back-to-best").click()
    assert browser(chosen).get_attribute("data-c") == "0.0"
    assert "In colour: the best trial." in browser("#legend").text


def test_the_slider_goes_over_the_epochs_with_the_keyboard(browser: Browser) -> None:
    browser.show(search_view())
    slider = browser("#epoch")

    def shown() -> tuple[str, list[str], float]:
        return browser("#epoch-text").text, browser.texts("#c0 .number"), float(thickness("0.0"))

    def thickness(place: str) -> str:
        return browser(f'#c0 .flow[data-c="{place}"]').get_attribute("stroke-width") or ""

    text, numbers, last = shown()
    assert (text, sorted(numbers)) == ("5 of 5", ["0.00", "0.50", "0.50"])
    slider.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    text, numbers, before = shown()
    assert (text, sorted(numbers)) == ("3 of 5", ["0.00", "0.30", "0.70"])
    assert before < last
    assert slider.get_attribute("aria-valuetext") == "epoch 3 of 5"
    slider.send_keys(Keys.HOME)
    assert shown()[0] == "1 of 5"
    wire = browser('.wires .flow[data-c="1.1"]')
    assert float(wire.get_attribute("stroke-width") or "") == pytest.approx(0.8 + 5.2 * weights_at(1)["b.in"][1])


def test_the_drawing_is_walked_with_the_keyboard(browser: Browser) -> None:
    browser.show(search_view())
    graph = browser("#graph")
    graph.send_keys(Keys.ARROW_DOWN)
    assert browser.focused.get_attribute("id") == "c0"
    details = browser("#details").text
    assert details.startswith("a.op\nlayer choice, takes 1 of 3")
    assert "skip (chosen) 0.5000 0 0 0.1 16x8x8" in details
    assert "conv 0.5000 1,234 5,678 0.5 16x8x8" in details
    browser.focused.send_keys(Keys.END)
    assert browser.focused.get_attribute("aria-label") == "b.op: 2 candidates, chosen conv"
    browser.focused.send_keys(Keys.ARROW_UP)
    assert browser("#details h3").text == "b.in"
    assert "(unnamed)" in browser("#details").text
    browser("#find").send_keys("B.OP")
    assert browser.texts("#found") == ["1 choice"]
    assert browser("#c2").get_attribute("class") == "box found"


def contrast(browser: Browser, selector: str) -> float:
    """Of the text of an element to the ground of the page, as WCAG defines it."""
    ratio: float = browser.run(
        """const light = (color) => {
             const parts = color.match(/[\\d.]+/g).slice(0, 3).map((one) => one / 255);
             const [r, g, b] = parts.map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
             return 0.2126 * r + 0.7152 * g + 0.0722 * b;
           };
           const one = document.querySelector(arguments[0]), style = getComputedStyle(one);
           const text = light(one instanceof SVGElement ? style.fill : style.color);
           const ground = light(getComputedStyle(document.body).backgroundColor);
           return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);""",
        selector,
    )
    return ratio


def test_both_colour_schemes_can_be_read(browser: Browser) -> None:
    browser.show(study_view())
    grounds = set()
    for scheme in ("light", "dark"):
        browser.scheme(scheme)
        grounds.add(browser.run("return getComputedStyle(document.body).backgroundColor"))
        for selector in ("h1", "dt", "#notes", "#legend", "th button", "td", ".graph .key", ".graph .number"):
            assert contrast(browser, selector) >= 4.5, (scheme, selector)
    assert grounds == {"rgb(255, 255, 255)", "rgb(20, 23, 28)"}


@pytest.mark.parametrize("view", [search_view(), study_view(), hostile_view()], ids=["search", "study", "hostile"])
def test_a_screen_of_360_pixels_has_it_all_without_scrolling_sideways(browser: Browser, view: View) -> None:
    browser.show(view, width=360, scheme="dark")
    assert browser.run("return document.documentElement.scrollWidth") <= 360
    assert browser("#graph").rect["width"] > 300


def test_names_of_others_are_text(browser: Browser) -> None:
    browser.show(hostile_view())
    browser("#graph").send_keys(Keys.END)
    browser("#find").send_keys("proto")
    for header in browser.driver.find_elements(By.CSS_SELECTOR, "#trials th button"):
        header.click()
    for more in browser.driver.find_elements(By.CSS_SELECTOR, "summary"):
        more.click()
    assert browser.run("return window.hacked") is None
    assert browser.run("return document.images.length") == 0
    assert browser("h1").text == HOSTILE[0]
    assert browser.texts("#details h3") == ["__proto__"]
    errors = column(browser, len(browser.texts("#trials th")))
    assert "\\u202egnp.exe" in errors
    assert HOSTILE[1] in errors
    assert len(browser.driver.find_elements(By.CSS_SELECTOR, "#curves figure")) == len(HOSTILE)


def test_curves_and_fronts_have_their_numbers_for_those_who_see_no_picture(browser: Browser) -> None:
    browser.show(search_view())
    labels = browser.run("return Array.from(document.querySelectorAll('figure [role=img]'), (one) => one.ariaLabel)")
    assert labels[1] == "accuracy over 5 epochs; in the last one valid 0.9"
    browser("#curves figure:nth-child(2) summary").send_keys(Keys.ENTER)
    WebDriverWait(browser.driver, 5).until(lambda _: browser.texts("#curves figure:nth-child(2) td"))
    assert browser.texts("#curves figure:nth-child(2) td")[-2:] == ["5", "0.9"]
    browser.show(study_view())
    Select(browser("#pareto-of")).select_by_visible_text("accuracy")
    assert browser.texts("#pareto figcaption") == ["value against accuracy"]
    assert browser.texts("#importance tbody th") == ["a.op", "b.op"]
    browser.run("view.trials.importance.choices = Array(1234).fill(view.trials.importance.choices[0]); importance()")
    assert len(browser.texts("#importance tbody th")) == 100
    assert browser("#importance p").text.endswith(" The first 100 of 1,234 choices.")


def test_every_control_has_a_name_and_every_heading_its_place(browser: Browser) -> None:
    browser.show(study_view())
    nameless = browser.run(
        """return Array.from(document.querySelectorAll("input, select, button, [tabindex='0'], section"))
             .filter((one) => !(one.labels && one.labels.length) && !one.textContent.trim() && !one.ariaLabel
                              && !one.getAttribute("aria-labelledby"))
             .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    assert browser.run("return Array.from(document.querySelectorAll('h1, h2'), (one) => one.tagName)")[0] == "H1"
    assert browser.run("return document.documentElement.lang") == "en"


def test_a_page_that_is_served_follows(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_FRESH_S", 0.0)
    monkeypatch.setattr(layout, "_MOST_LAYERS_CROSSED", 0)
    view = search_view()
    now = [replace(view, epochs=view.epochs[:2], weights=weights_at(2))]
    with Server(lambda: now[0]) as server:
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            browser.open(server.address)
            assert browser("#epoch-text").text == "2 of 2"
            now[0] = replace(view, running=False)
            wait = WebDriverWait(browser.driver, 10, poll_frequency=0.1)
            wait.until(lambda _: browser("#news").text == "Nobody works on it now.")
            assert browser("#epoch-text").text == "5 of 5"
            assert browser.texts("#notes li") == ["2 connections between choices are not drawn"]
            assert sorted(browser.texts("#c0 .number")) == ["0.00", "0.50", "0.50"]
        finally:
            browser.driver.get("about:blank")
            server.stop()
            thread.join(10)
