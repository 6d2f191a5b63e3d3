"""What a user is told about a wrong file: one cause, its place, a way out, exit status 2, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from archc.main import app

BASE = """\
archspec: 1
name: small
interface: {kind: causal_lm, vocab: 256, length: 64}
dims: {width: 128}
blocks:
  layer:
    kind: transformer_layer
    norm: rms_norm
    mixer: {kind: attention, heads: 4, kv_heads: 2, position: rope}
    channel: {kind: glu, hidden: 256}
graph:
  - {kind: token_embedding, width: width}
  - {name: layers, kind: repeat, times: 4, body: layer}
  - rms_norm
  - lm_head
"""
BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20))
ATTENTION = "{kind: attention, heads: 4, kv_heads: 2, position: rope}"

# What is changed in BASE, to what; line:column path; the cause; what the hint says.
WRONG = [
    ("heads: 4", "heads: 5", "9:37 blocks.layer.mixer.heads", "width 128 does not divide into 5 heads", "4, 8"),
    ("kv_heads: 2", "kv_heads: 3", "9:50 blocks.layer.mixer.kv_heads", "4 heads cannot be shared by 3", "1, 2 or 4"),
    ("kind: attention", "kind: atention", "9:19 blocks.layer.mixer.kind", "'atention'", "did you mean attention"),
    ("norm: rms_norm", "norm: rms_nrm", "8:11 blocks.layer.norm", "'rms_nrm'", "did you mean rms_norm?"),
    ("- rms_norm", "- rms_nrm", "14:5 graph[2]", "no kind or block is called 'rms_nrm'", "did you mean rms_norm?"),
    ("body: layer", "body: layr", "13:50 graph[1].body", "'layr'", "did you mean layer"),
    ("heads: 4", "heads: [4]", "9:37 blocks.layer.mixer.heads", "a list is not a whole number", ""),
    ("heads: 4", "heads: 0", "9:37 blocks.layer.mixer.heads", "0 is out of range", "more than 0"),
    ("heads: 4", "heads: many", "9:37 blocks.layer.mixer.heads", "nothing here is called 'many'", ""),
    ("position: rope", "bias: 3", "9:59 blocks.layer.mixer.bias", "3 is not true or false", ""),
    (
        "{kind: glu, hidden: 256}", "{kind: mixture, experts: {count: true, body: glu}}",
        "10:47 blocks.layer.channel.experts.count", "True experts", "a whole number",
    ),
    ("hidden: 256", "activation: gelo", "10:38 blocks.layer.channel.activation", "'gelo'", "did you mean gelu?"),
    ("hidden: 256", "hidden: width / 3", "10:34 blocks.layer.channel.hidden", "42.6667", "multiple_of"),
    ("hidden: 256", "hidden: width.real", "10:34 blocks.layer.channel.hidden", "not allowed in an expression", ""),
    ("hidden: 256", "hidden: 1 / 0", "10:34 blocks.layer.channel.hidden", "divides by zero", ""),
    ("hidden: 256", "hidden: {choose: [1, 2]}", "10:34 blocks.layer.channel.hidden", "a choice", "archspace: 1"),
    ("times: 4", "times: -1", "13:41 graph[1].times", "-1 is out of range", "at least 0"),
    ("times: 4", "times: 100000", "13:41 graph[1].times", "out of range", "at most 4,096"),
    ("width: width", "width: widht", "12:36 graph[0].width", "'widht'", "did you mean width"),
    ("width: width", "width: {each: [1, 2]}", "12:36 graph[0].width", "each: needs rounds", "repeat or loop"),
    ("- rms_norm", "- {kind: token_embedding, width: 9}", "14:12 graph[2]", "reads ids, not tokens", "project"),
    ("- rms_norm", "- class_token", "14:5 graph[2]", "could look ahead", "pool"),
    ("- rms_norm", "- {name: a, from: a, kind: rms_norm}", "14:5 graph[2]", "a cycle: a reads a", "loop"),
    ("- rms_norm", "- {from: layrs, kind: rms_norm}", "14:12 graph[2].from", "no stream is called 'layrs'", "layers"),
    ("- rms_norm", "- {from: [layers, tokens], kind: rms_norm}", "14:12 graph[2].from", "takes 1 input, not 2", ""),
    ("- rms_norm", "- rope", "14:5 graph[2]", "rope is a position", "a slot for a position"),
    ("- rms_norm", "- {name: layers, kind: rms_norm}", "14:12 graph[2].name", "bound twice", "its own name"),
    ("- rms_norm", "- {name: 3x, kind: rms_norm}", "14:12 graph[2].name", "'3x' is no name", "letters"),
    ("- rms_norm", "- {kind: rms_norm, when: never}", "14:28 graph[2].when", "'never' is no time", "training"),
    ("- rms_norm", "- {kind: rms_norm, when: training}", "15:5 graph[3]", "exists only in training", "when: training"),
    ("- rms_norm", "- {}", "14:5 graph[2]", "a node needs a kind", "kind: …"),
    ("- rms_norm", "- 3", "14:5 graph[2]", "3 is no node", "a node is"),
    ("- lm_head", "- {kind: lm_head, when: training}", "15:5 graph[3]", "cannot be the output", "outputs:"),
    ("- lm_head", "- identity", "15:5 graph[3]", "logits for length × 256 are promised", "end with lm_head"),
    ("norm: rms_norm", "norm: glu", "8:11 blocks.layer.norm", "glu is no norm", "layer_norm"),
    ("norm: rms_norm", "norm: layer", "8:11 blocks.layer.norm", "contains itself", "loop"),
    ("position: rope", "linear: {kind: low_rank, rank: 999}", "9:84 blocks.layer.mixer.linear.rank", "rank 999", "128"),
    ("kind: causal_lm", "kind: causal_ml", "3:19 interface", "no interface is called 'causal_ml'", "causal_lm?"),
    ("vocab: 256, ", "", "3:12 interface.vocab", "'vocab' is missing", "add vocab"),
    (ATTENTION, "{kind: partition, scheme: {kind: windows, size: 4}, body: identity}", "9:38 blocks.layer.mixer.scheme",
     "windows of a causal axis", "chunks"),
    ("archspec: 1", "archspec: 2", "1:11 archspec", "format version 2; this program knows 1", "newer version"),
    ("archspec: 1", "spec: 1", "1:1 ", "does not say what it is", "archspec: 1"),
    ("name: small", "init: xavir", "2:7 init", "no initialisation is called 'xavir'", "did you mean xavier?"),
    ("name: small", "extends: nothing.yaml", "2:10 extends", "there is no such file", ""),
    ("name: small", "set: {graph.layrs.times: 3}", "2:26 set.graph.layrs.times", "no item 'layrs'", "layers?"),
    ("name: small", "name: small\nname: large", "3:1 ", "key 'name' stands twice", "line 2"),
    ("name: small", "name: !!python/name:os.system", "2:7 ", "tag !!python/name:os.system is not allowed", ""),
    ("name: small", "name: *nobody", "2:7 ", "no anchor", ""),
    ("- lm_head", "- [", "16:1 ", "not YAML", ""),
    ("kv_heads: 2", "kv_head: 2", "9:40 blocks.layer.mixer.kv_head", "unknown field 'kv_head'", "kv_heads"),
    ("dims: {", "dimms: {", "4:1 dimms", "unknown field 'dimms'", "dims?"),
    ("hidden: 256", "hidden: 256, width: 9", "10:14 blocks.layer.channel", "cannot be added", "width: 128"),
    (ATTENTION, "3", "9:12 blocks.layer.mixer", "3 is no node", "a node is"),
    ("heads: 4", "heads: true", "9:37 blocks.layer.mixer.heads", "true is not a whole number", ""),
    ("dims: {width: 128}", "dims: {width: [1]}", "4:15 dims.width", "number", ""),
    ("- rms_norm", "- {kind: [a]}", "14:12 graph[2].kind", "kind must be a word", ""),
    ("archspec: 1", "archspec: true", "1:11 archspec", "format version", ""),
    ("name: small", "name: [a]", "2:7 name", "", ""),
]  # fmt: skip

# What is still told at another place, or with a second problem that follows from the first.
PENDING = [
    ("heads: 4", "hedas: 4", "9:30 blocks.layer.mixer.hedas", "unknown field 'hedas'", "heads"),
    ("position: rope", "linears: {vlue: no_matrix}", "9:63 blocks.layer.mixer.linears.vlue", "'vlue'", "value?"),
]


def checked(path: Path) -> str:
    """What ``archc check`` prints about a wrong file."""
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.output


ROWS = [*WRONG, *PENDING]


@pytest.mark.parametrize(("old", "new", "place", "cause", "hint"), ROWS)
def test_one_cause_with_its_place(tmp_path: Path, old: str, new: str, place: str, cause: str, hint: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(BASE.replace(old, new, 1))
    assert BASE.replace(old, new, 1) != BASE
    head, told, *hints = checked(file).splitlines()
    spot, _, path = place.partition(" ")
    assert head.startswith(f"{file}:{spot}")
    assert head.removeprefix(f"{file}:{spot}").strip().startswith(path)
    assert cause in told
    assert hint in "".join(hints)
    assert len(hints) <= 1, "one cause, one hint"


def test_all_independent_problems_at_once(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    text = BASE.replace("width: width", "width: widht").replace("- lm_head", "- {kind: lm_head, vocab: -1}")
    file.write_text(text.replace("name: small", "nmae: small"))
    places = [line.split()[0].removeprefix(f"{file}:") for line in checked(file).splitlines() if line.startswith("/")]
    assert places == ["2:7", "12:36", "15:28"] or places == ["2:1", "12:36", "15:28"]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "the file is empty"),
        (b"hello", "a single value"),
        (b"- a\n- b\n", "a list"),
        (bytes(range(256)), "not a text file"),
        (b"archspec: 1\0", "not YAML"),
        (b"archspec: 1\ngraph: " + b"[" * 10_000 + b"]" * 10_000, "nested deeper"),
        (BOMB.encode(), "once aliases are expanded"),
        (b"archspec: 1\n---\narchspec: 1\n", "a second document"),
        (b"? [a]\n: b\n", "a key must be a word"),
        (b"x: " + b"9" * 5000, "too many digits"),
        (b"x: '" + b"a" * 5_000_000 + b"'", "larger than 4 MiB"),
    ],
    ids=["empty", "word", "list", "binary", "zero", "deep", "bomb", "documents", "key", "digits", "large"],
)  # fmt: skip
def test_not_a_spec_at_all(tmp_path: Path, content: bytes, cause: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_bytes(content)
    assert cause in checked(file)


@pytest.mark.parametrize(
    ("defaults", "cause"),
    [
        ("norm: {kind: {kind: by_label, label: x}}", "a default is the name of a kind"),
        ("norm: rms_nrm", "no kind that wraps norms is called 'rms_nrm'"),
        ("norm: {kind: rms_norm}", "rms_norm wraps no norms"),
        ("linear: low_rnk", "no kind of weight matrix is called 'low_rnk'\n  did you mean low_rank?"),
        ("nrm: rms_norm", "there is no default for 'nrm'"),
    ],
)
def test_a_default_that_nothing_could_have_is_told(tmp_path: Path, defaults: str, cause: str) -> None:
    (tmp_path / "spec.yaml").write_text(BASE.replace("blocks:", f"defaults: {{{defaults}}}\nblocks:"))
    result = CliRunner().invoke(app, ["check", str(tmp_path / "spec.yaml")])
    assert (result.exit_code, cause in result.stderr) == (2, True), result.output


def test_defaults_of_a_block_are_a_mapping(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(BASE.replace("    norm: rms_norm", "    defaults: [low_rank]\n    norm: rms_norm"))
    assert "8:15  blocks.layer.defaults\n  defaults are a mapping from linear or norm to a kind" in checked(file)


@pytest.mark.parametrize(("name", "cause"), [("' '", "' ' is no name for an input"), ("class", "a word of Python")])
def test_an_input_has_a_name_that_code_can_bear(tmp_path: Path, name: str, cause: str) -> None:
    interface = f"interface: {{kind: backbone, inputs: {{{name}: {{axes: {{row: 4}}, width: 8}}}}}}"
    (tmp_path / "spec.yaml").write_text(f"archspec: 1\n{interface}\ngraph: [{{name: a, kind: rms_norm}}]\noutputs: a\n")
    result = CliRunner().invoke(app, ["check", str(tmp_path / "spec.yaml")])
    assert (result.exit_code, cause in result.stderr) == (2, True), result.output


def test_folders_and_missing_files(tmp_path: Path) -> None:
    assert "this is a folder" in checked(tmp_path)
    assert "there is no such file" in checked(tmp_path / "nothing.yaml")


@pytest.mark.skipif(os.name != "posix", reason="asks the system what a process took")
@pytest.mark.parametrize("kind", ["bomb", "deep", "large"])
def test_attacks_cost_little(tmp_path: Path, kind: str) -> None:
    """Under 1 s of CPU and 300 MB, the whole process."""
    text = {
        "bomb": BOMB,
        "deep": "archspec: 1\ngraph: " + "{a: " * 10_000,
        "large": "archspec: 1\nx: '" + "a" * 100_000_000,
    }[kind]
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    limits = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (300 * 2**20,) * 2); "
    limits += "resource.setrlimit(resource.RLIMIT_CPU, (1, 1)); from archc.main import app; app()"
    found = subprocess.run(
        [sys.executable, "-c", limits, "check", str(file)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 2, found.stderr
    assert len(found.stderr.splitlines()) <= 3
