"""The page in a real browser (Debian's chromium, driven by Playwright), with a server of its own, offline."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecosystem import Scenario, run

pytest.importorskip("solara", reason="the viz extra is not installed: pip install -e '.[viz]'")
playwright = pytest.importorskip("playwright.sync_api", reason="not installed: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("no browser is installed: apt-get install chromium", allow_module_level=True)

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost",
]
SMALL = Scenario(n_providers=6, n_outputs=40, temperature=0.6, fresh_fraction=0.1, rounds=3000, seed=3)
NOWHERE = "http://127.0.0.1:9/"


@contextlib.contextmanager
def serving(scenario, folder):
    """Start the server as a user would, cut off from the net; yield its address and process id."""
    file = folder / "scenario.toml"
    scenario.to_toml(file)
    command = "from analysis.cli import main; main()"
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", command, "app", "--scenario", str(file), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=folder,
            env=os.environ | {"SOLARA_ASSETS_CDN": NOWHERE},
        )
    try:
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, f"{line!r} {(folder / 'server.log').read_text()}"
        for _ in range(200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{found[0]}/readyz").close()
                break
            time.sleep(0.1)
        yield found[0], process.pid
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(SMALL, tmp_path_factory.mktemp("server")) as (url, _):
        yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with playwright.sync_playwright() as started:
        context = started.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("profile")),
            executable_path=CHROMIUM,
            args=FLAGS,
            viewport={"width": 1400, "height": 1000},
            accept_downloads=True,
        )
        context.set_default_timeout(60_000)
        yield context
        context.close()


class Tab:
    """One open tab, and everything that went wrong in it."""

    def __init__(self, browser, url):
        self.page = browser.new_page()
        self.wrong = []
        self.asked = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type == "error" else None)
        self.page.on("requestfailed", lambda r: self.wrong.append(r.url) if "blob:" not in r.url else None)
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.goto(url)
        self.page.wait_for_function("document.querySelectorAll('.solara-echarts canvas').length == 6")

    def button(self, name):
        return self.page.get_by_role("button", name=name, exact=True)

    def at(self, rounds):
        """Wait until so many rounds are done, or more."""
        self.page.wait_for_function(
            "k => Number((document.body.innerText.match(/Round ([0-9]+): /) || [0, 0])[1]) >= k", arg=rounds
        )

    def step(self, rounds):
        for _ in range(rounds):
            done = self.round()
            self.button("Step").click()
            self.at(done + 1)

    def round(self):
        found = re.search(r"Round ([\d,]+): ", self.page.inner_text("body"))
        return int(found[1].replace(",", "")) if found else 0

    def slide(self, label, key, times=1):
        thumb = self.page.locator(f"[role=slider][aria-label^='{label}']")
        for _ in range(times):
            thumb.press(key)

    def type(self, label, text):
        field = self.page.get_by_label(label, exact=False)
        field.fill(text)
        field.press("Enter")

    def save(self, label):
        with self.page.expect_download() as started:
            self.button(label).click()
        return Path(started.value.path())

    def shows(self, number, rounds):
        """Wait until the second series of a chart has just these rounds: a chart is drawn after the text."""
        self.page.wait_for_function(
            """([number, rounds]) => {
                const chart = document.querySelectorAll('.solara-echarts')[number].__vue__.chart;
                const seen = chart.getOption().series[1].data.map(point => point[0]);
                return JSON.stringify(seen) === JSON.stringify(rounds);
            }""",
            arg=[number, rounds],
        )

    def chart(self, number):
        """Return what a chart shows, as it holds it itself."""
        charts = "document.querySelectorAll('.solara-echarts')"
        return self.page.evaluate(f"{charts}[{number}].__vue__.chart.getOption()")


@pytest.fixture
def tab(browser, server):
    opened = Tab(browser, server)
    yield opened
    opened.page.close()
    assert opened.wrong == []


def test_offline_nothing_is_asked_of_anyone_else(tab, server):
    tab.step(6)
    tab.page.get_by_role("tab", name="What would it take?").click()
    tab.page.get_by_role("img").last.wait_for()
    assert [url for url in tab.asked if not url.startswith((server, "data:", "blob:"))] == []
    assert "Traceback" not in tab.page.inner_text("body")


def test_step_play_pause_reset(tab):
    tab.step(2)
    assert tab.round() == 2
    tab.shows(1, [0, 1, 2])
    tab.button("▶").click()
    tab.at(10)
    tab.button("❚❚").click()
    tab.button("▶").wait_for()
    tab.page.wait_for_timeout(500)
    paused = tab.round()
    tab.page.wait_for_timeout(700)
    assert tab.round() == paused >= 10
    tab.button("Reset").click()
    tab.page.get_by_text("Before the first round: ").wait_for()
    tab.step(1)
    assert tab.round() == 1


def test_sliders_lists_and_seed_make_the_next_run(tab):
    tab.type("seed", "12")
    tab.page.get_by_text("The settings have changed").wait_for()
    tab.slide("temperature T", "ArrowRight", 4)
    tab.page.get_by_text("temperature T = 0.8").wait_for()
    tab.slide("fresh fraction λ", "ArrowLeft", 3)
    tab.page.get_by_text("fresh fraction λ = 0.07").wait_for()
    tab.type("providers", "8")
    tab.button("Reset").click()
    tab.page.get_by_text("among 8 providers").wait_for()
    tab.step(1)
    saved = Scenario.from_toml(tab.save("Scenario (TOML)"))
    assert (saved.temperature, saved.fresh_fraction, saved.seed, saved.n_providers) == (0.8, 0.07, 12, 8)


def test_a_lever_while_it_plays_and_a_replay_to_the_same_bits(tab):
    tab.button("▶").click()
    tab.at(1)
    tab.button("Change fresh fraction").click()
    tab.page.get_by_text("fresh fraction set to 30%").wait_for()
    tab.button("Add a provider beside 0").click()
    tab.page.get_by_text("provider 6 joined the circle of provider 0").wait_for()
    tab.button("Close sharing").click()
    tab.page.get_by_text("sharing closed").wait_for()
    then = tab.round()
    tab.button("Detector on").click()
    tab.at(then + 10)
    tab.button("❚❚").click()
    tab.button("▶").wait_for()
    tab.page.wait_for_timeout(500)
    pulled = re.findall(r"(\d)\. After round (\d+): (\w+)", tab.page.inner_text("body"))
    assert [(place, what) for place, _, what in pulled] == [
        ("1", "fresh"),
        ("2", "provider"),
        ("3", "sharing"),
        ("4", "detector"),
    ]
    marks = tab.chart(1)["series"][0]["markLine"]["data"]
    assert [mark["xAxis"] for mark in marks] == sorted({int(at) for _, at, _ in pulled})
    assert marks[0]["label"]["formatter"].startswith("1")
    table = pd.read_parquet(tab.save("Table (Parquet)"))
    again = run(Scenario.from_toml(tab.save("Scenario (TOML)")), engine="agents")
    pd.testing.assert_frame_equal(again.table, table, check_exact=True)
    assert len(pd.read_csv(tab.save("Table (CSV)"))) == len(table)
    assert tab.save("Figure (PNG)").read_bytes().startswith(b"\x89PNG")


def test_a_click_selects_a_provider(tab):
    tab.step(1)
    place = tab.page.evaluate(
        """() => {
            const div = document.querySelector('.solara-echarts'), chart = div.__vue__.chart;
            const node = chart.getOption().series[0].data[4], box = div.getBoundingClientRect();
            const [x, y] = chart.convertToPixel({seriesIndex: 0}, [node.x, node.y]);
            return [box.x + x, box.y + y];
        }"""
    )
    tab.page.mouse.click(*place)
    tab.page.get_by_text("Provider 4 beside human data").wait_for()
    names = [one["name"] for one in tab.chart(2)["series"]]
    assert names == ["human data", "provider 4"]
    tab.page.get_by_text("Provider 4 keeps").wait_for()


def test_two_tabs_share_nothing(tab, browser, server):
    other = Tab(browser, server)
    tab.step(3)
    other.step(1)
    other.button("Open sharing").click()
    other.page.get_by_text("sharing opened").wait_for()
    assert (tab.round(), other.round()) == (3, 1)
    assert "sharing opened" not in tab.page.inner_text("body")
    other.page.close()
    tab.step(1)
    assert other.wrong == []


def test_bad_input_is_told_at_its_field_and_the_session_lives_on(tab):
    tab.type("seed", "seven")
    tab.page.get_by_text("'seven' is not a whole number").wait_for()
    tab.type("outputs", "99999999")
    tab.type("seed", "7")
    tab.page.get_by_text("too many to watch").wait_for()
    tab.button("Reset").click()
    tab.step(1)
    tab.type("outputs", "50")
    tab.button("Reset").click()
    tab.page.get_by_text("Before the first round").wait_for()
    tab.step(1)
    assert len(tab.chart(2)["series"][0]["data"]) == 50
    assert "Traceback" not in tab.page.inner_text("body")


def test_what_it_would_take_follows_the_sliders(tab):
    tab.page.get_by_role("tab", name="What would it take?").click()
    sentence = tab.page.get_by_text(re.compile("^Keeping 90% of human diversity takes"))
    sentence.wait_for()
    before = sentence.inner_text()
    tab.slide("temperature T", "ArrowRight", 4)
    tab.page.wait_for_function("before => !document.body.innerText.includes(before)", arg=before)
    tab.slide("share of human diversity", "ArrowLeft", 2)
    tab.page.get_by_text(re.compile("^Keeping 80% of human diversity takes")).wait_for()
    tab.button("▶").click()  # a run goes on while one reads here
    tab.page.wait_for_timeout(1000)
    tab.button("❚❚").click()
    tab.page.get_by_role("tab", name="Watch").click()
    tab.at(1)


def test_nothing_is_cut_off(tab):
    for width, scheme in ((420, "dark"), (800, "light"), (1400, "dark"), (2200, "light"), (420, "light")):
        tab.page.set_viewport_size({"width": width, "height": 900})
        tab.page.emulate_media(color_scheme=scheme)
        tab.page.wait_for_function(
            """() => [...document.querySelectorAll('.plots .v-card, .plots canvas, .saves .v-btn')]
                .map(e => e.getBoundingClientRect())
                .every(box => box.right <= innerWidth + 1 && box.left >= 0 && box.width > 100)"""
        )
        tab.page.wait_for_function(
            "dark => document.querySelectorAll('.solara-echarts')[1].__vue__.chart"
            ".getOption().textStyle.color == (dark ? '#e6e6e6' : '#222222')",
            arg=scheme == "dark",
        )
    tab.page.set_viewport_size({"width": 1400, "height": 1000})


def test_a_narrow_page_opens_with_graph_and_controls_in_sight(tab):
    tab.page.set_viewport_size({"width": 420, "height": 900})
    tab.page.reload()
    tab.page.locator(".v-navigation-drawer--is-mobile.v-navigation-drawer--open").wait_for()
    tab.page.wait_for_function("document.querySelectorAll('.solara-echarts canvas').length == 6")
    top = "selector => document.querySelector(selector).getBoundingClientRect().top"
    graph = tab.page.evaluate(top, ".plots canvas")
    assert graph + 200 < tab.page.evaluate(top, ".v-navigation-drawer")
    tab.step(1)


# --- how fast, how much memory --------------------------------------------------------------------


def resident(pid):
    """Return the memory of a process in megabytes."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


@pytest.mark.slow
def test_the_first_picture_and_a_redraw_of_a_hundred_providers(browser, tmp_path):
    scenario = Scenario(n_providers=100, n_outputs=1000, rounds=1000)
    with serving(scenario, tmp_path) as (url, _):
        Tab(browser, url).page.close()  # the server has read its files
        start = time.perf_counter()
        tab = Tab(browser, url)
        first = time.perf_counter() - start
        times = []
        for k in range(20):
            start = time.perf_counter()
            tab.button("Step").click()
            tab.page.wait_for_function(
                "k => document.querySelectorAll('.solara-echarts')[1].__vue__.chart"
                ".getOption().series[1].data.at(-1)[0] == k",
                arg=k + 1,
            )
            times.append(time.perf_counter() - start)
        tab.page.close()
    print(f"first picture {first:.2f} s; redraw {np.median(times):.2f} s, at most {max(times):.2f} s")


@pytest.mark.slow
def test_a_thousand_rounds_of_play_leave_memory_flat(browser, tmp_path):
    with serving(SMALL.replace(rounds=1300), tmp_path) as (url, pid):
        tab = Tab(browser, url)
        tab.page.set_default_timeout(600_000)
        tab.slide("pause between rounds", "Home")
        tab.button("▶").click()
        used = []
        page = browser.new_cdp_session(tab.page)
        for rounds in (300, 550, 800, 1050, 1300):
            tab.at(rounds)
            page.send("HeapProfiler.collectGarbage")  # what nobody holds may lie about for minutes
            heap = page.send("Runtime.getHeapUsage")["usedSize"] / 1e6
            used.append((rounds, round(resident(pid), 1), round(heap, 1)))
        tab.page.get_by_text("All 1,300 rounds are done").wait_for()
        tab.page.close()
    print("round, server MB, page MB:", used)
    # What a run records is 1 MB for these 1,000 rounds of 6 providers; a leak of one picture a round is 100.
    assert used[-1][1] - used[0][1] < 25 and used[-1][2] - used[0][2] < 25
