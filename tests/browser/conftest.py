"""A real Chromium, and a page of real short runs."""

import dataclasses
import importlib.util
import shutil
import time
from pathlib import Path

import pytest

WAIT = 20.0  # [s]
BASIC = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
)


class Browser:
    """Chromium on a page, with what the tests ask of it."""

    def __init__(self):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for argument in (*BASIC, "--window-size=1400,1000"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = Service(shutil.which("chromedriver"))  # the system's: none is downloaded
        self.driver = webdriver.Chrome(options=options, service=service)

    def open(self, page, *, width=1400, theme="light"):
        """Load a page anew; what was logged before is forgotten."""
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get("about:blank")
        self.errors(), self.requests()
        self.driver.get(page.as_uri())
        self.js("sessionStorage.clear()")
        self.until("return document.documentElement.dataset.ready === 'true'")
        return self

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, script, *arguments):
        """Wait until a script returns something true, and give it back."""
        end = time.monotonic() + WAIT
        while not (found := self.js(script, *arguments)):
            assert time.monotonic() < end, f"waited in vain for: {script}"
            time.sleep(0.05)
        return found

    def all(self, selector):
        from selenium.webdriver.common.by import By

        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        found = self.all(selector)
        assert found, f"nothing is {selector}"
        return found[0]

    def texts(self, selector):
        return [element.text for element in self.all(selector)]

    def press(self, *keys):
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def hover(self, element, dx=0, dy=0):
        from selenium.webdriver import ActionChains

        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        ActionChains(self.driver).move_to_element_with_offset(element, dx, dy).perform()

    def click(self, element):
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def tip(self):
        """What is shown beside a mark; empty where nothing is."""
        return self.one("#tip").text

    def ticks(self):
        """The labels of the horizontal axis of the first chart."""
        return self.js("""
            const axis = document.querySelector('#panels .panel:first-child .role-axis-label');
            const labels = [...axis.querySelectorAll('text')];
            const place = label => label.getBoundingClientRect().left;
            return labels.filter(l => l.textContent).sort((a, b) => place(a) - place(b)).map(l => l.textContent)
        """)

    def errors(self):
        """What the console has told since the last call: warnings too."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """Whatever was asked for but by the page's own address."""
        import json

        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("about:", "data:"))]


@pytest.fixture(scope="session")
def browser():
    started = Browser()
    yield started
    started.driver.quit()


@pytest.fixture(scope="session")
def axe():
    """axe-core, as a package for another driver carries it; nothing of that driver is needed."""
    package = importlib.util.find_spec("axe_playwright_python")
    assert package is not None, "make test-browser installs axe-core"
    return (Path(package.origin).parent / "axe.min.js").read_text(encoding="utf8")


@pytest.fixture(scope="session")
def logs(tmp_path_factory):
    """Folders of real short runs: a peak search, probes with a rollback, a monitor, one that AutoLR did not see."""
    from real_runs import make_runs

    folder = tmp_path_factory.mktemp("runs")
    make_runs(folder)
    return folder


@pytest.fixture(scope="session")
def trainings(logs):
    """Those, one of them with a name that would do harm if it were more than text, and one that still runs."""
    from autolr.report import read_trainings
    from real_runs import HOSTILE

    found = {training.name: training for training in read_trainings([logs])}
    found["untuned"] = dataclasses.replace(found["untuned"], name=HOSTILE, status="running")
    return list(found.values())


@pytest.fixture(scope="session")
def page(trainings, tmp_path_factory):
    """The page of all of them."""
    from autolr.report import write_page

    return write_page(trainings, tmp_path_factory.mktemp("page") / "page.html")
