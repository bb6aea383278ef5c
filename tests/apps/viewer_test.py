"""The viewer in a real browser: pan, zoom, heat, threshold, top tiles, and what it must refuse.

Usage: viewer_test.py SERPENTINE FOLDER [SCREENSHOTS]   FOLDER: of slides or predictions
Exit code 77: there is no Chromium.
"""

import http.client
import os
import re
import subprocess
import sys
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from browser import Browser, find_browser  # noqa: E402

failures = []


def check(condition, what):
    if not condition:
        failures.append(what)
        print("FAILED:", what)


def status(port, path, host=None):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", host or f"127.0.0.1:{port}")
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read()


def refusals(port):
    for path in (
        "/../../../../etc/passwd", "/file/0/../../../etc/passwd", "/file/0/%2e%2e%2fsettings.json",
        "/file/0/settings.json", "/file/99/report.html", "/tile/0/9999.jpg", "/tile/99/0.jpg", "/dz/0/8/999_999.jpg", "/dz/0/99/0_0.jpg", "/dz/99/3/0_0.jpg", "/heat/99.png",
    ):
        code, body = status(port, path)
        check(code in (400, 404), f"{path} must be refused, got {code}")
        check(b"root:" not in body, f"{path} gave a system file")
    check(status(port, "/api/slides", "evil.example:80")[0] == 403, "another Host must be refused")
    code, body = status(port, "/dz/0/8/0_0.jpg")
    check(code == 200 and body[:2] == b"\xff\xd8", "a DeepZoom tile must be a JPEG")
    check(b"TileSize" in status(port, "/dz/0.dzi")[1], "the DeepZoom description")


def interaction(url, pictures):
    with Browser() as page:
        shot = (lambda name: page.screenshot(os.path.join(pictures, name))) if pictures else (lambda name: None)
        page.open(url)
        page.until("window.viewer && viewer.slide && viewer.loaded > 3 && viewer.pending === 0")
        whole = page.evaluate("viewer.zoom")
        shot("whole.png")
        dark = """(() => { const c = document.getElementById('view'), d = c.getContext('2d')
            .getImageData(0, 0, c.width, c.height).data; let n = 0;
            for (let i = 0; i < d.length; i += 4) n += d[i + 1] < 200; return n / (d.length / 4); })()"""
        check(page.evaluate(dark) > 0.03, "the slide must be seen on the canvas")

        # the pixel under the mouse stays there while the wheel zooms
        spot = page.evaluate("[fromX(500), fromY(400)]")
        for _ in range(4):
            page.mouse("mouseWheel", 800, 400, deltaX=0, deltaY=-240)
        page.until("viewer.pending === 0")
        check(page.evaluate("viewer.zoom") > 2 * whole, "the wheel must zoom")
        now = page.evaluate("[fromX(500), fromY(400)]")
        check(max(abs(a - b) for a, b in zip(spot, now)) < 2, f"zooming moved the slide: {spot} to {now}")
        before = page.evaluate("[viewer.cx, viewer.zoom]")
        page.drag(800, 400, 700, 400)
        page.until("viewer.pending === 0")
        moved = page.evaluate("viewer.cx") - before[0]
        check(abs(moved * before[1] - 100) < 3, f"dragging 100 pixels moved {moved * before[1]}")
        shot("zoomed.png")
        page.call("Input.dispatchKeyEvent", type="keyDown", key="0", text="0")
        page.until("viewer.pending === 0")
        check(abs(page.evaluate("viewer.zoom") / whole - 1) < 1e-6, "0 must show the whole slide")

        if page.evaluate("!!viewer.slide.heat"):
            heat(page, shot)
        if page.evaluate("viewer.slides.length") > 1:
            page.evaluate("document.querySelectorAll('.slide')[1].click()")
            page.until("viewer.slide.id === 1 && viewer.pending === 0")
            shot("second.png")
        check(not page.errors, f"errors in the page: {page.errors}")


def heat(page, shot):
    page.until("viewer.heat && viewer.shown > 0")
    every = page.evaluate("viewer.shown")
    words = page.evaluate("document.getElementById('heatscale').textContent")
    check("rank within the slide" in words and "turbo" in words, f"the scale must be named: {words!r}")
    check(page.evaluate("document.getElementById('heatname').textContent") in ("Attention", "Risk", "Probability"), "what the heat shows")
    # what the heat changes on the canvas: nothing at opacity 0, then more with the opacity
    sum_of = """(() => { drawNow(); const c = document.getElementById('view'), d = c.getContext('2d')
        .getImageData(0, 0, c.width, c.height).data; let n = 0;
        for (let i = 0; i < d.length; i += 4) n += Math.abs(d[i] - d[i + 2]); return n / (d.length / 4); })()"""
    colourful = []
    for opacity in (0, 0.3, 0.9):
        page.evaluate(f"document.getElementById('opacity').value = {opacity}; document.getElementById('opacity').dispatchEvent(new Event('input'))")
        colourful.append(page.evaluate(sum_of))
    check(colourful[0] < colourful[1] < colourful[2], f"the heat must show with its opacity: {colourful}")
    print(f"heat: {every} cells, colourfulness {colourful}")
    slide = "document.getElementById('{0}').value = {1}; document.getElementById('{0}').dispatchEvent(new Event('input'))"
    page.evaluate(slide.format("opacity", 0.8))
    shot("heat.png")
    page.evaluate(slide.format("threshold", 0.8))
    few = page.evaluate("viewer.shown")
    check(0 < few < 0.35 * every, f"a threshold of 0.8 must leave a fifth of {every} cells, left {few}")
    shot("threshold.png")
    box = page.evaluate("(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector('#top button').getBoundingClientRect())")
    page.click(*box)
    page.until("viewer.mark && viewer.pending === 0")
    first = page.evaluate("viewer.slide.prediction.top_tiles[0]")
    check(abs(page.evaluate("viewer.mark.x") - first["x"]) < 1, "the first tile must be marked")
    check(abs(page.evaluate("viewer.cx") - first["x"]) < 1000, "the first tile must be in the middle")
    page.evaluate(slide.format("opacity", 0.3))
    shot("tile.png")


def main():
    program, folder = sys.argv[1:3]
    pictures = sys.argv[3] if len(sys.argv) > 3 else None
    if not find_browser():
        print("skipped: no Chromium")
        return 77
    server = subprocess.Popen([program, "serve", folder, "--port", "0", "--default-mpp", "0.5"], stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        url = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert url, f"serve said {line!r}"
        with urllib.request.urlopen(url.group(0)) as answer:
            check(b"Serpentine viewer" in answer.read(), "the page")
        refusals(int(url.group(1)))
        interaction(url.group(0), pictures)
    finally:
        server.terminate()
        code = server.wait(20)
    check(code == 0, f"serve must end well on SIGTERM, got {code}")
    print("all passed" if not failures else f"{len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
