"""The live page, in Chromium."""

import re
import shutil
import signal

import pytest
from conftest import PATIENCE, ROOT
from playwright.sync_api import Page, expect, sync_playwright

# Chromium logs this for every 429 that a script gets.
NO_ERROR = re.compile("Failed to load resource: the server responded with a status of 4")
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

    def visit(app, **options) -> Page:
        page = browser.new_page(**options)
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: urls.append(request.url))
        page.goto(f"{app.url}/monitor")
        expect(page.locator("#status")).to_have_text("live")
        pages.append((page, app.url))
        return page

    yield visit
    for page, url in pages:
        page.close()
        assert not [other for other in urls if not other.startswith((url, "data:"))]
    assert not [error for error in errors if not NO_ERROR.match(error)]


def fire(page: Page, route: str, count: int) -> None:
    page.locator("[name=route]").select_option(route)
    page.get_by_label("how many").fill(str(count))
    page.get_by_role("button", name="Fire").click()


def drawn(page: Page, chart: str) -> list[list[float]]:
    """The numbers of a chart."""
    return page.evaluate(f"Object.entries(charts).find(([name]) => name.startsWith('{chart}'))[1].data")


def test_the_page_shows_what_was_done(app, visit):
    page = visit(app)
    expect(page.locator("#nobody")).to_be_visible()
    fire(page, "GET /protected", 15)
    expect(page.locator("#outcome")).to_have_text("10 × 200 OK, 5 × 429 Too Many Requests")
    expect(page.locator("#headers")).to_contain_text(re.compile(r'RateLimit-Policy: "protected";q=10;w=60'))
    expect(page.locator("#admitted")).to_have_text("10")
    expect(page.locator("#refused")).to_have_text("5")
    # The page shows the client of the form.
    expect(page.locator("#client")).to_have_value("protected:127.0.0.1")
    expect(page.locator("#usage")).to_contain_text("10 of 10 units in the last 60 s.")
    expect(page.locator("#top tr")).to_have_text([re.compile(r"^protected:127\.0\.0\.15\d+ s ago$")])
    _, both, admitted = drawn(page, "rate")
    assert (sum(filter(None, both)), sum(filter(None, admitted))) == (15, 10)
    times, units, limit = drawn(page, "window")
    assert units == [*range(11), 10]
    assert set(limit) == {10}
    assert (times[0], times[-1]) == (-60, 0)


def test_hits_from_elsewhere_and_of_any_cost(app, visit):
    page = visit(app)
    body = {"prompt": "", "max_tokens": 400}
    codes = [app.client.post("/completions", json=body, headers={"X-API-Key": "k"}).status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    # Each is a hit for the client and one for the service; only the client's limit refused one.
    expect(page.locator("#admitted")).to_have_text("4")
    expect(page.locator("#refused")).to_have_text("1")
    page.locator("#top button").click()
    expect(page.locator("#client")).to_have_value(re.compile("^client-tokens:[0-9a-f]{32}$"))
    expect(page.locator("#usage")).to_contain_text("800 of 1,000 units in the last 60 s.")
    assert drawn(page, "window")[1] == [0, 400, 800, 800]
    page.locator("#client").fill("nothing:here")
    page.locator("#client").press("Enter")
    expect(page.locator("#usage")).to_have_text("No limit of this application has that name.")


def test_hits_that_have_left_the_window_are_not_drawn(app, server, visit):
    page = visit(app)
    server.hits("rl:protected:somebody", "60000ms", 90, 61, 40, 30)
    page.locator("#client").fill("protected:somebody")
    page.locator("#client").press("Enter")
    expect(page.locator("#usage")).to_contain_text("2 of 10 units in the last 60 s. The oldest hit leaves in 1")
    assert drawn(page, "window")[1] == [0, 1, 2, 2]


def test_names_are_text(app, server, visit):
    page = visit(app)
    name = '<img src=x onerror="document.title=1">'
    server.client.execute_command("RATELIMIT.HIT", name, 0, "1m")
    expect(page.locator("#top button")).to_have_text(name)
    assert page.locator("#top img").count() == 0


def test_a_stream_of_somebody_else(app, server, visit):
    page = visit(app)
    server.client.xadd("rl:strict:somebody", {"not": "a hit"})
    page.locator("#client").fill("strict:somebody")
    page.locator("#client").press("Enter")
    expect(page.locator("#status")).to_contain_text("was not written by this module")


def test_redis_away_and_back(app, server, visit):
    page = visit(app)
    server.kill()
    expect(page.locator("#status")).to_have_text("Redis does not answer")
    server.start()
    expect(page.locator("#status")).to_have_text("live")
    fire(page, "GET /strict", 7)
    # The counters of the new server begin at zero, and so do those of the page.
    expect(page.locator("#outcome")).to_have_text("5 × 200 OK, 2 × 429 Too Many Requests")
    expect(page.locator("#admitted")).to_have_text("5")
    expect(page.locator("#refused")).to_have_text("2")


def test_an_open_page_does_not_keep_the_application_from_ending(start, visit):
    app = start()
    page = visit(app)
    app.send(signal.SIGINT)
    assert app.process.wait(PATIENCE) in (0, -signal.SIGINT)
    assert "Traceback" not in app.output()
    expect(page.locator("#status")).to_have_text("the application does not answer")
    page.close()


def test_without_the_monitor(start):
    app = start(MONITOR="false")
    for path in ("/monitor", "/monitor/events", "/monitor/monitor.js"):
        assert app.get(path).status_code == 404


def test_it_fits_dark_and_light_phones_and_desks(app, visit):
    """The pictures go to target/fastapi, for a look; one is in docs/."""
    page, admitted = visit(app), 0
    for route, count, passes in [
        ("POST /login", 7, 5),
        ("GET /stocks/ACME/history", 120, 100),
        ("GET /strict", 9, 5),
        ("GET /protected", 8, 8),
    ]:
        fire(page, route, count)
        admitted += passes
        expect(page.locator("#admitted")).to_have_text(str(admitted))
    expect(page.locator("#usage")).to_contain_text("8 of 10 units")
    for scheme in ("light", "dark"):
        for width in (360, 1200):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 830})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.screenshot(path=ROOT / f"target/fastapi/monitor-{scheme}-{width}.png", full_page=True)
