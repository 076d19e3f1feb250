"""The page as a browser shows it. Skipped where there is no Playwright, or no Chromium."""

import math
import shutil

import pytest

from amauta.decode.tree.page import save_page
from amauta.decode.tree.tree import Tree

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OVERLAPS = """() => {
  const boxes = [...document.querySelectorAll("g.node rect.box")].map((box) => box.getBoundingClientRect());
  const over = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  return boxes.flatMap((a, i) => boxes.slice(0, i).filter((b) => over(a, b))).length;
}"""
SPILLS = """() => [...document.querySelectorAll("g.node")].filter((node) => {
  const right = node.querySelector("rect").getBoundingClientRect().right;
  return [...node.querySelectorAll(":scope > text")].some((text) => text.getBoundingClientRect().right > right);
}).length"""


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def opened(browser, tree, tmp_path, **how):
    save_page(tree, tmp_path / "t.html", "en")
    view = browser.new_context(viewport={"width": 1300, "height": 900}, **how).new_page()
    view.heard, view.asked = [], []
    view.on("console", lambda message: view.heard.append(message.text))
    view.on("pageerror", lambda error: view.heard.append(str(error)))
    view.on("request", lambda request: view.asked.append(request.url))
    view.goto((tmp_path / "t.html").as_uri())
    return view


def several(count=12, steps=40) -> Tree:
    """About five hundred nodes, some of their texts markup."""
    tree = Tree("sample", "Once\nupon a <time>", {}, ids=[0])
    for row in range(count):
        at = 0
        for step in range(steps):
            text = f" w{row * step % 17}" if step % 9 else "<script>x</script>"
            at = tree.add(
                at, [row], text, [-0.1 * (step % 7) - 0.01], state="kept",
                alternatives=[[row, text, 0.5, 0.75], [99, "\n", 0.2, 0]],
                removed={"top_k": {"count": 20, "mass": 0.25, "tokens": [[99, "\n", 0.2]]}},
            )  # fmt: skip
        tree.set(at, "finished")
    return tree


def merged() -> Tree:
    tree = Tree("graph of thoughts", "sort", {})
    parts = [tree.add(0, [1], f"part {i} of the list", [-0.5], kind="thought", value=i) for i in range(3)]
    tree.set(parts[2], "dropped")
    tree.choose(tree.add(parts[0], [2], "the whole", [-0.25], kind="answer", parents=[parts[1]]))
    return tree


def test_every_node_is_drawn_apart_and_nothing_is_asked_for(browser, tmp_path):
    tree = several()
    view = opened(browser, tree, tmp_path)
    assert view.locator("g.node").count() == len(tree.nodes) == 481
    assert view.locator(".link").count() == 480
    assert view.evaluate(OVERLAPS) == 0 and view.evaluate(SPILLS) == 0
    assert view.heard == [] and len(view.asked) == 1
    assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")  # only the drawing scrolls sideways


def test_a_node_tells_its_figures(browser, tmp_path):
    view = opened(browser, several(2, 3), tmp_path)
    view.locator('g.node[data-n="2"]').click()
    told = view.locator("#panel").inner_text()
    assert "·w0" in told and "#2 · token · kept" in told and "−0.110" in told and "90.0%" not in told
    assert f"{100 * math.exp(-0.11):.1f}%" in told
    assert "50.0%" in told and "75.0%" in told and "↵" in told
    assert "top_k 20 tokens, mass 25.0%" in told and "and more 19" in told
    assert "<script>x</script>" in told  # what came before, as text
    assert view.locator(".alt.taken .name").inner_text() == "·w0"
    view.locator('.answers .piece[data-n="3"]').first.click()
    assert "#3" in view.locator("#panel").inner_text()
    assert view.locator("g.node.picked").get_attribute("data-n") == "3"


def test_keys_walk_and_fold(browser, tmp_path):
    view = opened(browser, several(2, 3), tmp_path)
    picked = lambda: view.locator("g.node.picked").get_attribute("data-n")  # noqa: E731
    view.locator(".canvas").focus()
    walk = [picked()]
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowLeft"):
        view.keyboard.press(key)
        walk.append(picked())
    assert walk == ["1", "2", "5", "4", "0"]
    view.keyboard.press("Enter")
    assert view.locator("g.node").count() == 1
    view.locator("#unfold").click()
    assert view.locator("g.node").count() == 7
    view.locator('[data-fold="0"]').click()
    assert view.locator("g.node").count() == 1
    view.locator('.outline .piece[data-n="6"]').click()  # opens the way to it
    assert picked() == "6"


def test_merged_thoughts_have_their_links_and_dropped_ones_hide(browser, tmp_path):
    view = opened(browser, merged(), tmp_path)
    assert view.locator(".link").count() == 5 and view.locator(".link.merge").count() == 1
    view.locator("#hide").check()
    assert view.locator("g.node").count() == 4
    view.locator('g.node[data-n="1"]').click()
    view.locator(".canvas").press("Enter")  # what goes on from a folded thought is folded, other parents or not
    assert view.locator("g.node").count() == 3
    view.locator(".canvas").press("Enter")
    view.locator('g.node[data-n="4"]').click()
    assert "#2 part 1 of the list" in view.locator("#panel").inner_text()
    assert view.evaluate(OVERLAPS) == 0 and view.evaluate(SPILLS) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_read(browser, tmp_path, scheme):
    view = opened(browser, merged(), tmp_path, color_scheme=scheme)
    ratios = view.evaluate("""() => {
      const rgb = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
      const light = (colour) => rgb(colour).map((c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
      return [...document.querySelectorAll("g.node")].flatMap((node) => {
        const ground = light(getComputedStyle(node.querySelector("rect")).fill);
        return [...node.querySelectorAll(":scope > text")].map((text) => {
          const ink = light(getComputedStyle(text).fill);
          return (Math.max(ink, ground) + .05) / (Math.min(ink, ground) + .05);
        });
      });
    }""")
    assert len(ratios) >= 5 and min(ratios) >= 4.5  # WCAG 2.1, AA


def test_without_scripts_it_is_read(browser, tmp_path):
    view = opened(browser, merged(), tmp_path, java_script_enabled=False)
    text = view.locator("body").inner_text()
    assert all(f"part {i} of the list" in text for i in range(3)) and "the whole" in text and "← #1, #2" in text
    assert not view.locator("#drawing").is_visible()
