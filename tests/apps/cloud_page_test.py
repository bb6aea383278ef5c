"""The page of a cloud in a real browser: points, layers, turning, moving, zooming, the traversal.

Usage: cloud_page_test.py PAGE [SCREENSHOTS]
Exit code 77: there is no Chromium.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from browser import Browser, find_browser  # noqa: E402

failures = []

# a number that changes with any pixel, and the share of pixels that are not background
PICTURE = """(() => { const c = document.querySelector('canvas'), d = c.getContext('2d')
    .getImageData(0, 0, c.width, c.height).data; let sum = 0, seen = 0;
    for (let i = 0; i < d.length; i += 4) { if (d[i + 3]) { seen++;
      sum = (sum * 31 + d[i] * 7 + d[i + 1] * 3 + d[i + 2] + i) % 1000000007; } }
    return [sum, seen / (d.length / 4)]; })()"""


def check(condition, what):
    if not condition:
        failures.append(what)
        print("FAILED:", what)


def interaction(path, pictures):
    with Browser() as page:
        shot = (lambda name: page.screenshot(os.path.join(pictures, name))) if pictures else (lambda name: None)
        page.open("file://" + os.path.abspath(path))
        page.until("typeof view !== 'undefined' && view.visible > 0")
        first, share = page.evaluate(PICTURE)
        check(share > 0 and page.evaluate("view.visible > Math.min(view.points, 20000) / 2"), "the points must be seen")
        check(page.evaluate("view.points === data.colours.map(bytes)[0].length / 3"), "a colour for each point")
        check(page.evaluate("performance.getEntriesByType('resource').length") == 0, "the page must fetch nothing")
        check(page.evaluate("getComputedStyle(document.body).overflow") == "hidden", "no scroll bars")
        shot("cloud.png")

        titles = page.evaluate("[...document.querySelectorAll('button')].map(b => b.textContent)")
        layers = page.evaluate("data.titles.length")
        check(titles[:layers] == page.evaluate("data.titles"), f"a button for each layer, got {titles}")
        seen = {first}
        for number in range(1, layers):
            page.click(*middle(page, number))
            check(page.evaluate("view.layer") == number, f"a click must show layer {titles[number]}")
            keys = page.evaluate("document.querySelectorAll('#keys div').length")
            check(keys == page.evaluate(f"data.keys[{number}].length"), "what the colours mean must be said")
            seen.add(page.evaluate(PICTURE)[0])
            shot(f"layer{number}.png")
        check(layers == 1 or len(seen) > 1, "layers must differ")
        page.click(*middle(page, 0))
        check(page.evaluate(PICTURE)[0] == first, "the first layer again must be the same picture")

        if titles[-1] == "traversal":
            page.click(*middle(page, layers))
            check(page.evaluate("view.line"), "a click must show the traversal")
            check(page.evaluate(PICTURE)[0] != first, "the traversal must be seen")
            shot("traversal.png")
            page.click(*middle(page, layers))
            check(page.evaluate(PICTURE)[0] == first, "the traversal must go away again")

        # turning by 200 pixels is one radian; a right angle and back is the same picture
        page.drag(700, 400, 900, 400)
        check(abs(page.evaluate("view.yaw") - 1.6) < 1e-6, "dragging to the right must turn about z")
        page.drag(700, 400, 700, 500)
        check(abs(page.evaluate("view.pitch") + 0.6) < 1e-6, "dragging down must tilt")
        check(page.evaluate(PICTURE)[0] != first, "turning must change the picture")
        shot("turned.png")
        page.evaluate("view.yaw = 0.6; view.pitch = -1.1; draw()")

        # what is under the mouse stays there
        under = "(([X, Y]) => { let best = 0; for (let i = 0; i < count; i++) if (Math.hypot(X[i] - 800, Y[i] - 300) <" \
                " Math.hypot(X[best] - 800, Y[best] - 300)) best = i; return best; })(project(points, count))"
        point = page.evaluate(under)
        place = f"(([X, Y]) => [X[{point}], Y[{point}]])(project(points, count))"
        before = page.evaluate(place)
        for _ in range(3):
            page.mouse("mouseWheel", *before, deltaX=0, deltaY=-240)
        check(page.evaluate("view.zoom") > 2, "the wheel must zoom")
        after = page.evaluate(place)
        check(max(abs(a - b) for a, b in zip(before, after)) < 2, f"zooming moved the point under the mouse: {before} to {after}")
        shot("zoomed.png")
        check(not page.errors, f"errors in the page: {page.errors}")


def middle(page, number):
    return page.evaluate(
        f"(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelectorAll('button')[{number}].getBoundingClientRect())"
    )


def main():
    if not find_browser():
        print("skipped: no Chromium")
        return 77
    interaction(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    print("all passed" if not failures else f"{len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
