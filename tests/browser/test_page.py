"""The page in a real browser: whoever has a mouse, or a keyboard alone, a phone or a wide screen, can use all of it."""

import math
import threading
import time

import pytest

from autolr.cli.serve import server
from autolr.cli.watch import Watched
from autolr.report import Training, write_page
from autolr.runtime.log_writer import RunLog
from real_runs import HOSTILE
from report_inputs import a_probe, a_record, some_points

pytestmark = pytest.mark.browser

WIDTHS = 390, 800, 1400
THEMES = "light", "dark"
MARKS = "#panels .decisions path"
SHORT_RUNS, PROBE = "#search .tipped path", "#probes .tipped path"


@pytest.fixture
def opened(browser, page):
    return browser.open(page)


CURVES = "#panels .panel:first-child .mark-line path"


def lines(browser):
    """How many curves the first chart has."""
    return len(browser.all(CURVES))


def wait_for_lines(browser, count):
    browser.until(f"return document.querySelectorAll('{CURVES}').length === {count}")


def rows(browser, table):
    cells = "row => [...row.cells].map(cell => cell.innerText)"
    return browser.js(f"return [...document.querySelectorAll('#{table} .rows tbody tr')].map({cells})")


def test_the_page_is_quiet_and_asks_nobody_for_anything(browser, page):
    for theme in THEMES:
        browser.open(page, theme=theme)
        time.sleep(0.5)
        assert browser.errors() == []
        assert browser.requests() == [page.as_uri()]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen(browser, page, width, theme):
    browser.open(page, width=width, theme=theme)
    assert browser.js("return document.documentElement.scrollWidth <= innerWidth")
    wide = browser.js("""
        const own = '.scroll, svg, .skip, .away, [hidden]';  // these scroll or clip by themselves, or are not shown
        const room = document.documentElement.clientWidth + 1;
        const wide = [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > room);
        return wide.filter(e => !e.closest(own)).map(e => e.outerHTML.slice(0, 90))
    """)
    assert wide == []
    charts = browser.js("return [...document.querySelectorAll('.plot > svg, .chart > svg')].map(s => s.clientWidth)")
    assert len(charts) >= 5
    assert max(charts) <= width


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", [390, 1400])
def test_axe_finds_nothing_serious(browser, page, axe, width, theme):
    browser.open(page, width=width, theme=theme)
    browser.js("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    browser.js(axe)
    found = browser.driver.execute_async_script("axe.run().then(arguments[0])")
    told = [(v["id"], v["impact"], v["nodes"][0]["html"][:150]) for v in found["violations"]]
    assert [one for one in told if one[1] in {"serious", "critical"}] == []
    assert len(found["passes"]) > 20


def test_the_system_s_theme_is_taken_and_the_button_changes_it(browser, page):
    def ground():
        return browser.js("return getComputedStyle(document.body).backgroundColor")

    browser.open(page, theme="dark")
    dark, inks = ground(), browser.js("return getComputedStyle(document.querySelector('.mark-line path')).stroke")
    browser.click(browser.one("#theme"))
    light = ground()
    assert (dark, light) == ("rgb(15, 20, 25)", "rgb(255, 255, 255)")
    assert browser.js("return getComputedStyle(document.querySelector('.mark-line path')).stroke") != inks
    assert browser.one("#theme").get_attribute("aria-label") == "Dark theme"
    browser.open(page, theme="light")
    assert ground() == light


def test_the_headline_and_how_each_run_stands_are_said_first(opened):
    assert opened.one(".headline").text.startswith("4 runs: 3 finished, 1 running. 1 peak found, ")
    assert [state.strip() for state in opened.texts(".runs .status")] == ["finished"] * 3 + ["running"]
    assert (
        len(
            set(
                opened.js(
                    "return [...document.querySelectorAll('.runs .swatch line')].map(l => l.getAttribute('stroke'))"
                )
            )
        )
        == 4
    )


def test_a_name_that_looks_like_markup_is_text(opened):
    assert HOSTILE in opened.texts(".runs strong")
    assert opened.all("main b, main script") == []
    assert HOSTILE in [row[0] for row in rows(opened, "summary")]


def test_a_run_is_switched_off_and_on(opened):
    before, marks = lines(opened), len(opened.all(MARKS))
    first = opened.one(".runs input")
    opened.click(first)
    wait_for_lines(opened, before - 1)
    assert len(opened.all(MARKS)) < marks
    opened.click(first)
    wait_for_lines(opened, before)
    hide = opened.all("#runs .tools button")[1]
    opened.click(hide)
    opened.until("return !document.querySelector('#panels .mark-line path')")
    assert opened.errors() == []


def test_hovering_over_a_decision_shows_its_reason_and_over_a_curve_its_values(opened):
    marks = opened.all(MARKS)
    kinds = {}
    for mark in marks:
        kinds.setdefault(opened.js("return arguments[0].getAttribute('aria-label')", mark), mark)
    assert len(kinds) > 20
    label, mark = next((label, mark) for label, mark in kinds.items() if "peak found" in label)
    opened.hover(mark)
    assert opened.tip().replace("\n", ". ") == label
    assert "short runs" in opened.tip()
    loss = opened.all(".plot")[1]
    opened.hover(loss, dx=20)
    told = opened.tip()
    assert told.startswith("Step ")
    assert "AdamW, PeakSearch" in told
    opened.hover(opened.one("h1"))
    assert opened.tip() == ""


def test_escape_takes_the_reason_away(opened):
    from selenium.webdriver.common.keys import Keys

    opened.hover(opened.all(MARKS)[0])
    assert opened.tip()
    opened.press(Keys.ESCAPE)
    assert opened.tip() == ""


def test_decisions_are_told_apart_by_shape_and_not_by_colour_alone(opened):
    shape_and_label = "p => [p.__data__.datum.shape, p.getAttribute('aria-label')]"
    told = opened.js(f"return [...document.querySelectorAll('{MARKS}')].map({shape_and_label})")
    kinds = ("peak found", "raised", "lowered", "rolled back", "kept")
    shapes: dict[str, set[str]] = {}
    for shape, label in told:
        shapes.setdefault(shape, set()).update(kind for kind in kinds if f": {kind}" in label)
    assert all(len(found) == 1 for found in shapes.values()), shapes
    assert len(shapes) >= 4, "as many as there are kinds in these runs"


def test_the_horizontal_axis_is_of_steps_of_time_or_of_shares(opened):
    def title():
        return opened.texts("#panels .panel:last-child .role-axis-title text")[0]

    assert title() == "optimizer steps"
    last = "document.querySelector('#panels .panel:last-child .role-axis-title text')"
    titles = {"time": "seconds since the run began", "share": "share of the run", "step": "optimizer steps"}
    for name, words in titles.items():
        opened.js("arguments[0].click()", opened.one(f"#axis input[value={name}]"))
        opened.until(f"return {last}.textContent === arguments[0]", words)
        assert lines(opened) >= 3
    opened.js("arguments[0].click()", opened.one("#axis input[value=share]"))
    opened.until(f"return {last}.textContent === 'share of the run'")
    assert (opened.ticks()[0], opened.ticks()[-1]) == ("0%", "100%")


def test_zoom_by_buttons_and_by_dragging_and_back(opened):
    from selenium.webdriver import ActionChains

    whole = opened.ticks()
    press = {one.get_attribute("data-do"): one for one in opened.all("#curves [data-do]")}
    opened.click(press["in"])
    zoomed = opened.ticks()
    assert zoomed != whole
    opened.click(press["right"])
    assert opened.ticks() != zoomed
    opened.click(press["reset"])
    assert opened.ticks() == whole
    plot = opened.one(".plot")
    opened.js("arguments[0].scrollIntoView({block: 'center'})", plot)
    ActionChains(opened.driver).move_to_element_with_offset(plot, -200, 0).click_and_hold().move_by_offset(
        100, 0
    ).release().perform()
    assert opened.ticks() != whole
    ActionChains(opened.driver).move_to_element_with_offset(plot, 300, -60).double_click().perform()
    assert opened.ticks() == whole


def test_phases_are_named(opened):
    assert {"hold", "decay"} <= set(opened.texts("#panels .panel:first-child .mark-text text"))


def test_the_search_shows_every_short_run_its_parabola_and_the_chosen_peak(opened, trainings):
    search = next(record.search for training in trainings for record in training.records if record.search)
    labels = opened.js(f"return [...document.querySelectorAll('{SHORT_RUNS}')].map(p => p.getAttribute('aria-label'))")
    assert sum(label.startswith("Run of ") for label in labels) == len(search["runs"])
    assert f"Chosen peak: {search['lr']:.3g}" in opened.one("#search .finding").text
    assert any("parabola" in text for text in opened.texts("#search .legend li"))
    opened.hover(opened.all(SHORT_RUNS)[0])
    assert "peak rate" in opened.tip()
    opened.click(opened.one("#search summary"))
    assert len(rows(opened, "search")) == len(search["runs"])


def test_probes_are_chosen_by_step_and_one_after_the_other(opened):
    from selenium.webdriver.support.select import Select

    Select(opened.one("#which")).select_by_visible_text("SGD, ExploreExploit")
    assert opened.one("#search").is_displayed() is False
    select, (previous, following) = Select(opened.one("#probes select")), opened.all("#probes button")
    count = len(select.options)
    first = opened.one("#probes .finding").text
    assert first.startswith(f"Probe 1 of {count}, at step ")
    assert previous.is_enabled() is False
    opened.click(following)
    assert opened.one("#probes .finding").text.startswith(f"Probe 2 of {count}, ")
    opened.until(f"return document.querySelectorAll('{PROBE}').length >= 7"), "five samples and two kept ones"
    opened.click(previous)
    assert opened.one("#probes .finding").text == first
    select.select_by_index(count - 1)
    assert opened.one("#probes .finding").text.startswith(f"Probe {count} of {count}, ")
    assert following.is_enabled() is False


def test_a_table_sorts_both_ways_and_filters(opened):
    heads = {head.text: head for head in opened.all("#decisions th button")}
    before = rows(opened, "decisions")
    opened.click(heads["step"])
    steps = [int(row[1]) for row in rows(opened, "decisions")]
    assert steps == sorted(steps)
    opened.click(heads["step"])
    assert [int(row[1]) for row in rows(opened, "decisions")] == sorted(steps, reverse=True)
    sorts = opened.js("return [...document.querySelectorAll('#decisions th')].map(th => th.getAttribute('aria-sort'))")
    assert sorts.count("descending") == 1
    opened.one("#decisions input").send_keys("monitor")
    few = rows(opened, "decisions")
    assert 0 < len(few) < len(before)
    assert {row[0] for row in few} == {"SGD, Monitor"}
    assert f"{len(few)} of {len(before)} shown" in opened.texts("#decisions [role=status]")
    opened.one("#decisions input").clear()
    opened.press(" ")
    from selenium.webdriver.support.select import Select

    Select(opened.one("#decisions .filters select")).select_by_visible_text("peak found")
    assert {row[3] for row in rows(opened, "decisions")} <= {"peak found"}


CONTROLS = "a[href], button, input, select, summary, [tabindex='0']"


def test_the_keyboard_alone_reaches_every_control_and_can_leave_it(opened):
    from selenium.webdriver.common.keys import Keys

    shown = f'[...document.querySelectorAll("{CONTROLS}")].filter(e => e.checkVisibility() && !e.disabled)'
    # Of a group of radio buttons Tab reaches the one that is chosen; arrows go to the others.
    wanted = opened.js(f"return {shown}.filter(e => e.type !== 'radio' || e.checked).length")
    opened.js(f"{shown}.forEach((e, i) => e.setAttribute('data-nth', i)); document.activeElement.blur()")
    reached = set()
    for _ in range(2 * wanted + 10):
        opened.press(Keys.TAB)
        here = opened.js("return document.activeElement.getAttribute('data-nth')")
        if here in reached:
            break
        if here is not None:
            reached.add(here)
            assert opened.js("return document.activeElement.matches(':focus-visible')")
    missed = opened.js(
        f"return {shown}.filter(e => (e.type !== 'radio' || e.checked) && !arguments[0].includes(e.dataset.nth))"
        ".map(e => e.outerHTML.slice(0, 90))",
        sorted(reached),
    )
    assert missed == []
    assert len(reached) == wanted > 30


def test_the_keyboard_alone_operates_every_kind_of_control(opened):
    from selenium.webdriver.common.keys import Keys

    def focus(selector):
        opened.js("arguments[0].focus()", opened.one(selector))

    before = lines(opened)
    focus(".runs input")
    opened.press(Keys.SPACE)
    wait_for_lines(opened, before - 1)
    opened.press(Keys.SPACE)
    focus("#axis input:checked")
    opened.press(Keys.ARROW_RIGHT)
    assert opened.one("#axis input:checked").get_attribute("value") == "time"
    opened.press(Keys.ARROW_LEFT)
    whole = opened.ticks()
    focus(".plot")
    opened.press("+")
    assert opened.ticks() != whole
    opened.press("0")
    assert opened.ticks() == whole
    opened.press(Keys.ARROW_RIGHT)
    assert opened.tip().startswith("Step ")
    focus("#curves [data-do=in]")
    opened.press(Keys.ENTER)
    assert opened.ticks() != whole
    focus("#decisions th button")
    opened.press(Keys.ENTER)
    assert opened.one("#decisions th").get_attribute("aria-sort") == "ascending"
    focus("#which")
    opened.press("S")
    focus("#probes [data-do=next]")
    opened.press(Keys.ENTER)
    assert opened.one("#probes .finding").text.startswith("Probe 2 of ")
    focus("#theme")
    opened.press(Keys.SPACE)
    assert opened.js("return document.documentElement.dataset.theme") == "dark"
    assert opened.errors() == []


def test_the_keyboard_shows_a_decision_s_reason_and_goes_from_one_to_the_next(opened):
    from selenium.webdriver.common.keys import Keys

    opened.js("document.querySelector('.plot').focus()")
    opened.press(Keys.TAB)
    label = "return document.activeElement.getAttribute('aria-label')"
    first = opened.js(label)
    assert opened.js(f"return document.activeElement.matches('{MARKS}')")
    assert opened.tip().replace("\n", ". ") == first
    opened.press(Keys.ARROW_RIGHT)
    second = opened.js(label)
    assert second != first
    assert opened.tip().replace("\n", ". ") == second
    opened.press(Keys.TAB)
    assert opened.tip() == ""
    # One that is outside of what is zoomed to comes into view.
    opened.js("document.querySelector('.plot').focus()")
    opened.press("+", "+", "+")
    opened.press(Keys.TAB)
    opened.press(*[Keys.ARROW_LEFT] * 100)
    mark, plot = (
        opened.js(f"return document.activeElement{path}.getBoundingClientRect().toJSON()")
        for path in ("", ".closest('.plot')")
    )
    assert plot["left"] <= mark["left"] <= mark["right"] <= plot["right"]


def test_every_chart_says_its_finding_to_who_cannot_see_it(opened):
    labels = [one.get_attribute("aria-label") for one in opened.all(".plot:has(svg), .chart:has(svg)")]
    assert len(labels) >= 5
    assert labels[0].startswith("Learning rate. The highest rates of 4 runs lie from ")
    assert any(label.startswith("The search for the peak. Chosen peak: ") for label in labels)
    assert all(any(character.isdigit() for character in label) for label in labels)


def test_one_run_alone_has_its_headline_and_no_list_of_runs(browser, trainings, tmp_path):
    alone = next(training for training in trainings if training.name == "AdamW, PeakSearch")
    browser.open(write_page([alone], tmp_path / "alone.html"))
    assert browser.one(".headline").text.startswith("Peak 0.0")
    assert browser.texts("h1 .status") == ["finished"]
    assert browser.all(".runs") == []
    assert browser.errors() == []


@pytest.mark.parametrize(
    "trainings",
    [
        pytest.param([Training("nothing", [])], id="nothing"),
        pytest.param([Training("no time", [a_probe(), a_record(20, loss=None)], some_points())], id="no time"),
        pytest.param([Training("gaps", [], [{"step": k, "lr": 0.0, "loss": None} for k in range(9)])], id="gaps"),
        pytest.param([Training("zero", [a_record(0, 0.0)])], id="zero"),
        pytest.param([Training("far", [a_record(1, 1e-90), a_record(2, 1e90)])], id="far"),
    ],
)  # fmt: skip
def test_a_training_with_little_in_it_is_no_error(browser, trainings, tmp_path):
    browser.open(write_page(trainings, tmp_path / "page.html"))
    assert browser.errors() == []


def test_twenty_runs_of_ten_thousand_steps_take_less_than_3_mb_and_10_s_and_work(browser, tmp_path):
    def run(seed):
        points = [{"step": k, "lr": 0.1 / (1 + k * seed % 7), "loss": 2 + math.sin(k * seed)} for k in range(1, 10_001)]
        points += [{"step": k, "test_loss": 1 + 1 / k, "test_accuracy": 1 - 1 / k} for k in range(100, 10_001, 100)]
        decisions = [a_probe(100 * k, to=0.12) if k % 2 else a_record(100 * k) for k in range(1, 100)]
        return Training(f"run {seed}", decisions, points, 10_000, times=[(k, k * 0.37) for k in range(0, 10_001, 5)])

    trainings = [run(seed) for seed in range(1, 21)]
    began = time.process_time()  # of all threads; other programs do not count
    file = write_page(trainings, tmp_path / "twenty.html")
    took = time.process_time() - began
    assert file.stat().st_size < 3e6
    assert took < 10
    browser.open(file)
    assert len(browser.all(".runs li")) == 20
    drawn = f"return [...document.querySelectorAll('{CURVES}')].map(p => p.getAttribute('d').split('L').length)"
    assert max(browser.js(drawn)) <= 1_205, "24,000 points are drawn at once"
    for _ in range(4):
        browser.click(browser.one("#curves [data-do=in]"))
    browser.until(f"return (() => {{ {drawn} }})().every(count => count > 40 && count < 130)"), "a sixteenth, whole"
    assert browser.errors() == []


def test_the_page_that_is_served_renews_itself_and_keeps_its_theme(browser, tmp_path):
    log = RunLog(tmp_path / "run.jsonl", {"optimizer": "SGD", "policy": "Monitor()", "seed": 0, "total_steps": 9})
    for step in range(1, 6):
        log.rate(step, 0.1)
    log.beat()
    with server(Watched([tmp_path]), 0) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        host, port = listening.server_address
        browser.driver.get(f"http://{host}:{port}/")
        browser.until("return document.documentElement.dataset.ready === 'true'")
        assert browser.texts("h1 .status") == ["running"]
        browser.click(browser.one("#theme"))
        theme = browser.js("return document.documentElement.dataset.theme")
        browser.errors()
        for step in range(6, 10):
            log.rate(step, 0.1)
        browser.until("return document.querySelector('h1 .status')?.textContent === 'finished'")
        assert browser.js("return document.documentElement.dataset.theme") == theme
        assert [error for error in browser.errors() if "favicon" not in error] == []
        browser.driver.get("about:blank")
        listening.shutdown()
