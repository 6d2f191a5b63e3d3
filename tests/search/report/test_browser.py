"""The page in a real browser: its script runs without an error, and what it draws is there and looks like something."""

import json
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest
from matplotlib import image

from search import report as reports
from search.report.page import page
from search.runner import run
from search.study import load
from tests.search.report.reports import report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.browser

# What a user would do: points at a mark, clicks it, compares, drags along an axis; then says what is to be seen.
USE = """
<script>
const at = (mark, name, y) => mark.dispatchEvent(new PointerEvent(name,
  {bubbles: true, clientX: 300, clientY: y || 300, pointerId: 1}));
const card = document.getElementById("card"), said = {};
const dot = document.querySelector(".dot");
at(dot, "pointerover");
said.hovered = !card.hidden && card.textContent;
said.lit = document.querySelectorAll(".on").length;
at(dot, "pointerout");
said.gone = card.hidden;
dot.dispatchEvent(new MouseEvent("click", {bubbles: true, clientX: 300, clientY: 300}));
[...card.querySelectorAll("button")].find((button) => button.textContent === "as B").click();
said.other = document.getElementById("other").value === dot.dataset.t;
said.blocks = document.querySelectorAll("#parts th").length;
said.changed = document.querySelectorAll("#parts ins, #parts del").length;
const brush = document.querySelector(".brush"), box = brush.getBoundingClientRect();
brush.setPointerCapture = () => {};
at(brush, "pointerdown", box.top + 1);
at(brush, "pointermove", box.top + 12);
said.sifted = document.querySelectorAll(".way.off").length;
at(brush, "pointerup", box.top + 12);
at(brush, "pointerdown", box.top + 1);
said.all = document.querySelectorAll(".way.off").length;
document.body.append(Object.assign(document.createElement("pre"), {id: "said", textContent: JSON.stringify(said)}));
</script>
"""


@pytest.fixture(autouse=True)
def _browser():
    if CHROMIUM is None:
        said = "no Chromium here, so the page was not looked at; on Debian, apt-get install chromium"
        warnings.warn(said, stacklevel=1)  # which pytest prints, other than why it skips
        pytest.skip(said)


def browse(file: Path, *options: str) -> tuple[str, list[str]]:
    """What the browser prints, and what it logs of the page's console."""
    own = f"--user-data-dir={file.parent / 'profile'}"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
               "--virtual-time-budget=4000", own, *options, file.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def used(file: Path) -> tuple[str, dict]:
    """The document after a user's doing, and what was to be seen."""
    file.write_text(file.read_text().replace("</body>", USE + "</body>"))
    seen, console = browse(file, "--dump-dom")
    assert not console
    return seen, json.loads(re.search(r'<pre id="said">(.*?)</pre>', seen)[1].replace("&lt;", "<").replace("&gt;", ">"))


def test_a_study_with_failures_is_looked_at(study_file, tmp_path, monkeypatch):
    from search import session

    evaluate = session.evaluate

    def sometimes(study, proposal, *rest, **more):
        if "relu" in proposal.params.values():
            raise ValueError("no relu today")
        return evaluate(study, proposal, *rest, **more)

    monkeypatch.setattr(session, "evaluate", sometimes)
    run(load(study_file(trials="8")), out=tmp_path / "run", quiet=True)
    file = reports.write(reports.read(tmp_path / "run"), tmp_path / "run")[1]
    for width, height in ((1280, 3600), (700, 4200)):
        picture = tmp_path / f"{width}.png"
        _, console = browse(file, f"--screenshot={picture}", f"--window-size={width},{height}")
        assert not console
        pixels = image.imread(picture)
        assert pixels.shape[:2] == (height, width) and pixels.std() > 0.05
    seen, said = used(file)
    assert "no relu today" in seen and said["lit"] >= 3  # in the plane, in the coordinates, in the curves
    assert "kind: patch_embedding" in said["hovered"] and said["gone"] and said["other"]
    assert said["blocks"] >= 4 and said["changed"] >= 1


def test_a_large_study_of_three_objectives_is_used(tmp_path):
    file = tmp_path / "page.html"
    file.write_text(page(report(600, 3, failed=20, rungs=True, predicted=True), Path("no/such/folder")))
    seen, said = used(file)
    assert seen.count("<svg") >= 9 and seen.count('class="dot') >= 3 * 580
    assert "dims.width" in said["hovered"] and 0 < said["sifted"] < 580 and said["all"] == 0


def test_an_error_of_a_script_is_seen(tmp_path):
    file = tmp_path / "page.html"
    file.write_text("<!doctype html><script>nothing.there()</script>")
    assert "nothing is not defined" in browse(file, "--dump-dom")[1][0]


def test_a_study_without_a_trial_has_no_error(tmp_path):
    file = tmp_path / "page.html"
    file.write_text(page(report(0), Path("no/such/folder")))
    seen, console = browse(file, "--dump-dom")
    assert "Nothing was drawn yet" in seen and not console
