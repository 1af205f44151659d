"""The live page, in Chromium."""

import json
import re
import shutil
import signal
import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import PATIENCE, ROOT, wait_for
from playwright.sync_api import Page, expect, sync_playwright

# Chromium logs this for every 4xx and 503 that a script gets, and for an application that has ended.
NO_ERROR = re.compile("Failed to load resource: (the server responded with a status of|net::ERR_)")
KEY = {"X-API-Key": "demo"}
expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "chromium is missing, run: make test-fastapi"
    options = ["no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]
    options += ["disable-component-update", "disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[f"--{option}" for option in options])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Opens the page. There must be no error, and no request to anywhere else."""
    pages, errors, urls = [], [], []

    def visit(app, context=None, **options) -> Page:
        page = context.new_page() if context else browser.new_page(**options)
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: urls.append(request.url))
        page.goto(f"{app.url}/monitor")
        expect(page.locator("#status")).not_to_have_text("connecting")
        pages.append((page, app.url))
        return page

    yield visit
    for page, url in pages:
        page.close()
        assert not [other for other in urls if not other.startswith((url, "data:"))]
    assert not [error for error in errors if not NO_ERROR.match(error)]


@pytest.fixture
def app(start):
    """An application of its own for each test, as the monitor remembers."""
    return start()


def fire(page: Page, route: str, count: int, key: str = "demo") -> None:
    page.locator("[name=route]").select_option(route)
    page.get_by_label("how many").fill(str(count))
    page.get_by_label("X-API-Key").fill(key)
    page.get_by_role("button", name="Fire").click()


def watch(page: Page, client: str) -> None:
    page.locator("#client").fill(client)
    page.locator("#client").press("Enter")


def drawn(page: Page, chart: str) -> list[list[float]]:
    """The numbers of a chart."""
    return page.evaluate(f"Object.entries(charts).find(([name]) => name.startsWith('{chart}'))[1].data")


def data(app, client: str = "") -> dict:
    return app.client.get("/monitor/data", params={"client": client}).json()


def test_the_page_shows_what_was_done(app, visit):
    page = visit(app)
    expect(page.locator(".top .none")).to_be_visible()
    before = int(page.locator("#refused-all").inner_text())
    fire(page, "GET /protected", 15)
    expect(page.locator("#outcome")).to_have_text("10 × 200 OK, 5 × 429 Too Many Requests")
    expect(page.locator("#headers")).to_contain_text(re.compile(r'RateLimit-Policy: "protected";q=10;w=60'))
    expect(page.locator("#admitted")).to_have_text("10")
    expect(page.locator("#refused")).to_have_text("5")
    expect(page.locator("#refused-all")).to_have_text(str(before + 5))
    # The page shows the client of the form.
    expect(page.locator("#client")).to_have_value("protected:127.0.0.1")
    expect(page.locator("#usage")).to_contain_text("10 of 10 units in the last 60 s.")
    expect(page.locator("#top tr")).to_have_text(
        [re.compile(r"^protected:127\.0\.0\.1address5 /min5 in all\d+ s ago$")]
    )
    expect(page.locator("#near tr")).to_have_text(
        [re.compile(r"^protected:127\.0\.0\.1address10 of 10room in [56]\d s$")]
    )
    expect(page.locator("#policies tr")).to_have_text(
        [re.compile(r"^10/1mprotected10 /min\d+ in all5 /min\d+ in all$")]
    )
    _, both, admitted = drawn(page, "rate")
    assert (sum(filter(None, both)), sum(filter(None, admitted))) == (15, 10)
    times, units, limit = drawn(page, "window")
    assert units == [*range(11), 10]
    assert set(limit) == {10}
    assert (times[0], times[-1]) == (-60, 0)


def test_hits_from_elsewhere_and_of_any_cost(app, visit):
    page = visit(app)
    body = {"prompt": "", "max_tokens": 400}
    codes = [app.client.post("/completions", json=body, headers=KEY).status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    # Each is a hit for the client and one for the service; only the client's limit refused one.
    expect(page.locator("#admitted")).to_have_text("4")
    expect(page.locator("#refused")).to_have_text("1")
    page.locator("#top button").click()
    expect(page.locator("#client")).to_have_value(re.compile("^client-tokens:[0-9a-f]{32}$"))
    expect(page.locator("#usage")).to_contain_text("800 of 1,000 units in the last 60 s.")
    expect(page.locator("#more")).to_have_text("API key of the free plan, as an HMAC")
    assert drawn(page, "window")[1] == [0, 400, 800, 800]
    watch(page, "nothing:here")
    expect(page.locator("#usage")).to_have_text("No limit of this application has that name.")


def test_clients_near_their_limit_are_shown_before_they_are_refused(app, server, visit):
    """Also those of other processes, which this one finds among all keys."""
    server.client.mset({f"other:{i}": "x" for i in range(1000)})
    server.hits("rl:protected:calm", "60000ms", *reversed(range(7)))
    server.hits("rl:protected:busy", "60000ms", *reversed(range(8)))
    page = visit(app)
    expect(page.locator("#near tr")).to_have_text([re.compile("^protected:busyaddress8 of 10")])
    assert data(app)["refused"]["minute"] == 0
    server.client.execute_command("RATELIMIT.RESET", "rl:protected:busy")
    expect(page.locator(".near .none")).to_be_visible()


def test_plans_and_a_key_in_cyrillic(start, visit):
    app = start(API_KEYS='{"ключ": "pro", "demo": "free"}')
    page = visit(app)
    fire(page, "GET /stocks/ACME/history", 3, "ключ")
    expect(page.locator("#outcome")).to_have_text("3 × 200 OK")
    expect(page.locator("#usage")).to_contain_text("3 of 500 units")
    expect(page.locator("#more")).to_have_text("API key of the pro plan, as an HMAC")
    fire(page, "GET /stocks/ACME/history", 1, "ключи")
    expect(page.locator("#outcome")).to_have_text("1 × 401 Unauthorized")
    watch(page, "protected:ключ")
    expect(page.locator("#usage")).to_contain_text("0 of 10 units")


def test_more_than_the_limit_is_explained(app, server, visit):
    page = visit(app)
    fire(page, "POST /login", 8)
    expect(page.locator("#outcome")).to_have_text("5 × 401 Unauthorized, 3 × 429 Too Many Requests")
    expect(page.locator("#usage")).to_contain_text("8 of 5 units in the last 60 s.")
    expect(page.locator("#more")).to_contain_text("refused attempts count as well (STRICT)")
    server.hits("rl:protected:somebody", "60000ms", *reversed(range(12)))
    watch(page, "protected:somebody")
    expect(page.locator("#usage")).to_contain_text("12 of 10 units")
    expect(page.locator("#more")).to_contain_text("recorded afterwards (FORCE)")


def test_hits_that_have_left_the_window_are_not_drawn(app, server, visit):
    page = visit(app)
    server.hits("rl:protected:somebody", "60000ms", 90, 61, 40, 30)
    watch(page, "protected:somebody")
    expect(page.locator("#usage")).to_contain_text("2 of 10 units in the last 60 s. The oldest hit leaves in 1")
    assert drawn(page, "window")[1] == [0, 1, 2, 2]


def test_names_are_text_and_of_any_bytes(app, server, visit):
    page = visit(app)
    name = '<img src=x onerror="document.title=1">'
    for key in (name, name, b"\xff\x00"):
        server.client.execute_command("RATELIMIT.HIT", key, 0, "1m")
    expect(page.locator("#top button")).to_have_text([name, "\\xff\0"])
    assert page.locator("#top img").count() == 0


def test_a_stream_of_somebody_else(app, server, visit):
    page = visit(app)
    server.client.xadd("rl:strict:somebody", {"not": "a hit"})
    watch(page, "strict:somebody")
    expect(page.locator("#usage")).to_contain_text("was not written by this module")
    expect(page.locator("#status")).to_have_text("live")
    server.client.set("rl:strict:other", "x")
    watch(page, "strict:other")
    expect(page.locator("#usage")).to_contain_text("WRONGTYPE")


def test_no_second_is_missing(app, server):
    """Ten hits in each half second, for eight seconds: every second that has ended has some, and none is lost."""
    before = data(app)["admitted"]["all"]
    deadline = time.monotonic() + 8
    hits = 0
    while time.monotonic() < deadline:
        for _ in range(10):
            server.client.execute_command("RATELIMIT.HIT", f"key:{hits}", 5, "1m")
            hits += 1
        time.sleep(0.25)
    wait_for("the last second", lambda: data(app)["admitted"]["all"] == before + hits)
    told = data(app)
    assert not any(told["gaps"])
    counts = [second[0] for second in told["seconds"] if second]
    assert sum(counts) == hits
    first = next(i for i, count in enumerate(counts) if count)
    assert all(counts[first : first + 8]), counts


def test_redis_away_and_back(app, server, visit):
    page = visit(app)
    fire(page, "GET /strict", 7)
    expect(page.locator("#refused")).to_have_text("2")
    everything = page.locator("#refused-all").inner_text()
    server.kill()
    expect(page.locator("#banner")).to_have_text(re.compile(r"^Redis does not answer, since \d\d:\d\d:\d\d\."))
    expect(page.locator("#banner")).to_contain_text("Meanwhile requests pass without limits, and /login answers 503.")
    expect(page.locator("#status")).to_have_text("away")
    wait_for("a gap of two seconds", lambda: sum(data(app)["gaps"]) >= 2)
    expect(page.locator("#nobody-near")).to_have_text("Not known while Redis cannot be read.")
    # What was counted stays.
    expect(page.locator("#refused")).to_have_text("2")
    server.start()
    expect(page.locator("#status")).to_have_text("live")
    expect(page.locator("#banner")).to_be_hidden()
    assert any(page.evaluate("charts.rate.gaps")), "the gap is marked"
    assert page.locator("#refused").inner_text() == "2"
    assert page.locator("#refused-all").inner_text() == everything
    fire(page, "GET /strict", 7)
    expect(page.locator("#outcome")).to_have_text("5 × 200 OK, 2 × 429 Too Many Requests")
    # The counters of the new server begin at zero, but the page goes on.
    expect(page.locator("#refused")).to_have_text("4")
    expect(page.locator("#refused-all")).to_have_text(str(int(everything) + 2))
    page.reload()
    expect(page.locator("#refused")).to_have_text("4")


def test_every_second_of_an_outage_is_marked(start, server):
    """Also where each reading takes its time-out."""
    app = start(RATE_LIMIT_TIMEOUT="4")
    wait_for("a reading", lambda: any(data(app)["seconds"]))
    server.send(signal.SIGSTOP)
    try:
        gaps = wait_for("the end of a time-out", lambda: any(told := data(app)["gaps"]) and told)
    finally:
        server.send(signal.SIGCONT)
    first = gaps.index(True)
    assert all(gaps[first:]) and len(gaps) - first >= 3


def test_ten_tabs(app, browser, visit):
    context = browser.new_context()
    pages = [visit(app, context) for _ in range(10)]
    fire(pages[-1], "GET /protected", 15)
    for page in pages:
        expect(page.locator("#refused")).to_have_text("5")
    context.close()


def test_an_open_page_does_not_keep_the_application_from_ending(start, visit):
    app = start()
    page = visit(app)
    app.send(signal.SIGINT)
    assert app.process.wait(PATIENCE) in (0, -signal.SIGINT)
    assert "Traceback" not in app.output()
    expect(page.locator("#banner")).to_have_text("The application does not answer. This is what it told last.")


def test_without_the_monitor(start):
    app = start(MONITOR="false")
    for path in ("/monitor", "/monitor/data", "/monitor/logs", "/monitor/static/monitor.js"):
        assert app.get(path).status_code == 404


# How it looks

CONTRAST = """() => {
    const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const light = (text) => {
        const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(channel);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ratio = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    const outside = getComputedStyle(document.querySelector("section")).backgroundColor;
    return [...document.querySelectorAll("input, select, #fire button")].map((element) => {
        const style = getComputedStyle(element);
        // What bounds a button is its colour.
        const edge = element.matches("button") ? style.backgroundColor : style.borderColor;
        return ratio(light(edge), light(outside));
    });
}"""

CUT_OFF = """[...document.querySelectorAll("td > *")]
    .filter((name) => name.scrollWidth > name.clientWidth + 1).map((name) => name.textContent)"""


def look(page: Page, state: str) -> None:
    """In both colour schemes, on a phone and on a desk: it fits, and axe finds nothing. Pictures go to
    target/fastapi."""
    for scheme in ("light", "dark"):
        for width in (360, 1200):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 830})
            where = f"{state}-{scheme}-{width}"
            assert page.evaluate("document.documentElement.scrollWidth") <= width, where
            assert not page.evaluate(CUT_OFF), where
            assert min(page.evaluate(CONTRAST)) >= 3, where
            found = Axe().run(page, options={"resultTypes": ["violations"]})
            assert not found.response["violations"], f"{where}:\n{json.dumps(found.response['violations'], indent=1)}"
            page.screenshot(path=ROOT / f"target/fastapi/monitor-{where}.png", full_page=True)


def test_it_is_accessible_when_empty(app, visit):
    look(visit(app), "empty")


def test_it_is_accessible_when_busy_and_in_an_outage(app, server, visit):
    """One of the pictures is in docs/."""
    page, admitted = visit(app), 0
    for route, count, passes in [
        ("POST /login", 8, 5),
        ("GET /stocks/ACME/history", 120, 100),
        ("POST /completions", 9, 18),
        ("GET /strict", 9, 5),
        ("GET /protected", 8, 8),
    ]:
        fire(page, route, count)
        admitted += passes
        expect(page.locator("#admitted")).to_have_text(str(admitted))
        page.wait_for_timeout(1500)
    expect(page.locator("#usage")).to_contain_text("8 of 10 units")
    look(page, "running")
    server.kill()
    expect(page.locator("#banner")).to_be_visible()
    look(page, "outage")
    server.start()


def test_bars_and_labels_stay_apart_on_a_phone(app, visit):
    page = visit(app, viewport={"width": 360, "height": 830})
    bars = page.evaluate("charts.rate.data[0].length")
    pixels = page.evaluate("charts.rate.bbox.width / devicePixelRatio / charts.rate.data[0].length")
    assert bars == 30 and pixels * 0.3 >= 2, "two pixels between bars"
