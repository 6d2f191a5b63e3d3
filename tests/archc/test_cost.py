"""``archc cost``: what it tells, how it draws it, and what it refuses."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.archc.invoking import invoke

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY, SWIN = EXAMPLES / "tiny.yaml", EXAMPLES / "zoo" / "swin_t.yaml"
LLAMA = EXAMPLES / "zoo" / "language" / "llama_3_1_70b.yaml"


def read(*words: object) -> Any:
    return json.loads(invoke("cost", *words, "--json").stdout)


def test_a_table_of_parts_and_the_totals() -> None:
    text = invoke("cost", TINY, "--device", "l4").stdout
    head, *rest = text.splitlines()
    assert head == "tiny: prefill of batch 1, length 256, float32, on NVIDIA L4"
    assert re.search(r"^layers\.0–3 +repeat .* 738,304 .*(compute|memory|overhead)$", text, re.M)
    for phase in ("prefill", "decode", "step"):
        assert re.search(rf"^{phase} +\d.* – ", text, re.M)
    assert "intervals assumed" in text
    assert max(map(len, rest)) <= 130


def test_numbers_that_move_are_priced_at_the_end_or_as_asked() -> None:
    moving = EXAMPLES / "growing_mixture.yaml"
    flops = [read(moving, "--device", "l4", *words)["flops"]["forward"]
             for words in ((), ("--progress", 1), ("--progress", 0))]  # fmt: skip
    assert flops[0] == flops[1] > flops[2]
    text = invoke("cost", moving, "--device", "l4", "--progress", 0.3).stdout
    assert text.startswith("numbers that move in training: as at progress 0.3 of it\n")
    assert invoke("cost", moving, "--device", "l4").stdout.startswith("numbers that move in training: as at the end")
    assert "no number of the spec moves" in invoke("cost", TINY, "--progress", 0.3, code=2).stderr


def test_the_parts_of_a_phase() -> None:
    text = invoke("cost", TINY, "--device", "l4", "--phase", "step").stdout
    assert re.search(r"^optimizer +adamw", text, re.M)
    text = invoke("cost", TINY, "--device", "l4", "--phase", "decode", "--context", 7).stdout
    assert "decoded token of batch 1, context 7" in text
    assert "16.38 kB after a context of 7" in text  # keys and values of 2 heads of 32, 4 layers, 8 tokens


def test_classes_of_operators() -> None:
    text = invoke("cost", TINY, "--device", "l4", "--operators").stdout
    assert re.search(r"^aten\.mm +product +17 .*%", text, re.M)
    assert "layers" not in text


def test_a_phase_that_is_not_there_is_said() -> None:
    assert re.search(r"^decode +none: decoding needs", invoke("cost", SWIN, "--device", "l4").stdout, re.M)
    found = read(SWIN, "--device", "l4")
    assert found["latency_ms"]["decode"] is None
    assert "decode" in found["assumptions"]["absent"]


def test_what_does_not_fit_is_said() -> None:
    text = invoke("cost", LLAMA, "--device", "l4", "--dtype", "bfloat16", "--length", 32).stdout
    assert re.search(r"^fits +24 GB: no training: needs \S+ [GT]B more; no serving: needs 117.1 GB more$", text, re.M)
    assert read(LLAMA, "--device", "l4", "--dtype", "bfloat16", "--length", 32)["fits"]["missing"]["serving"] > 117e9


def test_a_training_run() -> None:
    words = TINY, "--device", "l4", "--dtype", "bfloat16", "--tokens", "1e12", "--on", 64, "--mfu", 0.5
    assert re.search(
        r"^training run +1 T tokens: .*FLOP, .* h on 64 devices at 50%", invoke("cost", *words).stdout, re.M
    )
    found = read(*words)
    assert found["training_run"]["hours"] == pytest.approx(found["training_run"]["flops"] / 64 / 0.5 / 121e12 / 3600)


def test_a_column_for_each_spec() -> None:
    text = invoke("cost", "--compare", TINY, SWIN, "--device", "l4").stdout
    assert re.search(r"^ +tiny +swin-t", text)
    assert re.search(r"^parameters +803,968 +28,288,354 +× 35.2$", text, re.M)
    assert re.search(r"^decode +\S+ .s +–$", text, re.M)
    assert set(read("--compare", TINY, SWIN, "--device", "l4")) == {str(TINY), str(SWIN)}


class Page(HTMLParser):
    """Which tags stand in a page, and what they refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "line", "rect", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "rect", "circle"):
            assert self.open.pop() == tag


def test_one_page_that_refers_to_nothing(tmp_path: Path) -> None:
    file = tmp_path / "cost.html"
    invoke("cost", TINY, "--device", "l4", "--device", "xeon_8480", "--phase", "step", "--html", file)
    assert [path.name for path in tmp_path.iterdir()] == ["cost.html"]
    text = file.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert not page.open and not page.links
    assert "script" not in page.tags and "url(" not in text and "@import" not in text
    assert "http" not in text
    assert page.tags.count("svg") == 4  # colours, latency, roofline, memory
    for words in ("NVIDIA L4", "Intel Xeon Platinum 8480+", "layers.3", "optimizer states", "cache"):
        assert words in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((TINY, "--device", "h100"), r"no device 'h100'\n *try h100_pcie or h100_sxm"),
        ((TINY, "--device", "l4", "--phase", "decod"), r"no phase 'decod'\n *did you mean decode\?"),
        ((TINY, "--device", "l4", "--context", 256), "one more token after 256; the interface allows 256 in all"),
        ((TINY, "--device", "l4", "--context", -1), "one more token after -1"),
        ((SWIN, "--device", "l4", "--phase", "decode"), "decoding needs causal inputs"),
        ((SWIN, "--device", "l4", "--context", 3), "decoding needs causal inputs"),
        ((TINY, SWIN, "--device", "l4"), "--compare"),
        ((TINY, "--device", "l4", "--device", "a10"), "--html"),
        ((TINY, "--device", "l4", "--tokens", 0), "more than 0 tokens"),
        ((TINY, "--device", "l4", "--html", "/no/such/folder/page.html"), "cannot be written"),
        ((TINY, "--device", "p100", "--dtype", "bfloat16"), "states no peak for bfloat16"),
    ],
)
def test_what_is_refused(words: tuple[object, ...], told: str) -> None:
    found = invoke("cost", *words, code=2)
    assert re.search(told, re.sub(r"[│╭╮╰╯─]+", "", found.stderr))
    assert not found.stdout
