"""The page as a browser shows it. Skipped where there is no Playwright, or no Chromium."""

import shutil

import pytest

from amauta.inspect.page import save_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CONTRAST = """() => {
  const box = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour, under) => {
    box.fillStyle = under; box.fillRect(0, 0, 1, 1); box.fillStyle = colour; box.fillRect(0, 0, 1, 1);
    return [...box.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (c) => c.map((x) => x / 255).map((x) => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4)
    .reduce((sum, x, i) => sum + x * [.2126, .7152, .0722][i], 0);
  const paper = getComputedStyle(document.body).backgroundColor;
  return Math.min(...[...document.querySelectorAll(".t, .soft, dt, legend")].map((one) => {
    const style = getComputedStyle(one);
    const a = light(rgb(style.color, paper)), b = light(rgb(style.backgroundColor, paper));
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  }));
}"""


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def opened(browser, pair, tmp_path, language="en", **how):
    save_page(pair, tmp_path / "p.html", language)
    view = browser.new_context(viewport={"width": 1200, "height": 900}, **how).new_page()
    view.heard, view.asked = [], []
    view.on("console", lambda message: view.heard.append(message.text))
    view.on("pageerror", lambda error: view.heard.append(str(error)))
    view.on("request", lambda request: view.asked.append(request.url))
    view.goto((tmp_path / "p.html").as_uri())
    return view


def strengths(view):
    return view.evaluate("[...document.querySelectorAll('[data-n]')].map((one) => one.style.getPropertyValue('--s'))")


def test_it_colours_by_what_is_chosen_and_asks_for_nothing(browser, pair, tmp_path):
    view = opened(browser, pair, tmp_path)
    assert view.locator("#controls").is_visible() and view.locator("input[name=measure]").count() == 10
    assert strengths(view) == ["0.250", "0.500", "0.750", "1.000", "0.250", "0.500"]
    view.locator("input[value=score]").check()
    assert view.locator("#rejected .minus").count() == 0 and view.locator("#chosen .minus").count() == 4
    view.locator("input[value=mask_reward]").check()
    assert strengths(view) == ["0.000", "1.000", "1.000", "1.000", "0.000", "1.000"]
    assert "0.500" in view.locator("#largest").inner_text()
    assert view.heard == [] and len(view.asked) == 1
    assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_token_tells_its_figures_and_where_the_model_looked(browser, pair, tmp_path):
    view = opened(browser, pair, tmp_path)
    view.locator("#rejected [data-n='1']").click()
    told = view.locator("#panel").inner_text()
    assert "<|turn|>" in told and "−0.500" in told and "−0.050" in told and "¿Uno↵" in told and "50.0%" in told
    assert [one.inner_text() for one in view.locator(".looked").all()] == ["<|begin|>", "¿Uno↵\n"]
    view.locator("#layer").select_option("0")  # the first layer: places 0 and 3, the answer's own first token
    assert [one.inner_text() for one in view.locator(".looked").all()] == ["<|begin|>", "·no"]
    assert view.locator("#rejected .looked").count() == 1 and view.locator("#chosen .looked").count() == 0
    assert view.locator("#layer option").count() == 3


def test_keys_walk_and_each_side_is_one_stop(browser, pair, tmp_path):
    view = opened(browser, pair, tmp_path)
    picked = lambda: view.locator(".picked").get_attribute("data-n")  # noqa: E731
    assert view.locator("[data-n][tabindex='0']").count() == 2
    view.locator("#chosen [data-n='0']").focus()
    walk = [picked()]
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End", "ArrowRight", "Home"):
        view.keyboard.press(key)
        walk.append(picked())
    assert walk == ["0", "1", "2", "1", "3", "3", "0"]
    assert view.locator("[data-n][tabindex='0']").count() == 2
    label = view.locator("#chosen [data-n='0']").get_attribute("aria-label")
    assert label == "Sí Implicit reward 0.025"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser, pair, tmp_path, scheme):
    view = opened(browser, pair, tmp_path, color_scheme=scheme)
    assert view.evaluate(CONTRAST) >= 4.5


def test_without_scripts_it_can_be_read(browser, pair, tmp_path):
    view = opened(browser, pair, tmp_path, "es", java_script_enabled=False)
    assert not view.locator("#controls").is_visible() and not view.locator("#panel").is_visible()
    assert "Respuesta elegida" in view.locator("main").inner_text()
    assert view.locator("#chosen .plus").count() == 4
