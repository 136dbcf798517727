"""``ponder replay``: what goes to which stream, with which exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main
from tests.unit.pipeline.recordings import make_rows, write_rows


@pytest.fixture
def samples(tmp_path: Path) -> str:
    return write_rows(tmp_path / "samples.parquet", make_rows(questions=9, pool=8))


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["replay", *(str(word) for word in words)])


QUICK = ("--repeats", 2, "--max-samples", 8)


def test_json_is_one_list_and_nothing_else(samples: str) -> None:
    result = call(
        samples, *QUICK, "--rules", "fixed:4,market", "--budget-samples", "2,3", "--evidence", "votes", "--json"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert [(one["rule"], one["budget_samples"]) for one in found] == [("fixed:4", None), ("market", 2), ("market", 3)]
    for one in found:
        assert {"mean_samples", "mean_tokens", "accuracy", "agreement"} <= set(one)
        for name in ("mean_samples", "mean_tokens", "accuracy", "agreement"):
            low, high = one[f"{name}_interval"]
            assert low <= one[name] <= high
        assert (one["questions"], one["repeats"], one["pool"], one["evidence"]) == (9, 2, 8, "votes")
        assert sum(one["stop_reasons"].values()) == 9
    assert [one["mean_samples"] for one in found] == [4, 2, 3]


def test_the_table_is_aligned(samples: str) -> None:
    result = call(samples, *QUICK)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == [
        "rule",
        "budget",
        "samples",
        "tokens",
        "accuracy",
        "%",
        "agreement",
        "%",
        "stopped",
        "because",
    ]
    assert [line.split()[0] for line in lines[1:-1]] == [
        "fixed:40", "adaptive_consistency:0.95", "esc:5", "ppr:0.05", "market", "market", "market",
    ]  # fmt: skip
    ends = {line.index(" ± ") for line in lines[1:-1]}
    assert len(ends) == 1
    assert lines[-1].startswith("9 questions, 8 samples recorded a question, 2 repeats, evidence auto")


@pytest.mark.parametrize("name", ["out.png", "out.svg"])
def test_the_picture(samples: str, tmp_path: Path, name: str) -> None:
    assert call(samples, *QUICK, "--plot", tmp_path / name).exit_code == 0
    head = (tmp_path / name).read_bytes()[:100]
    assert head.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    if name.endswith("svg"):
        drawn = (tmp_path / name).read_text()
        for words in ("samples a question (mean)", "completion tokens a question (mean)", "accuracy (%)"):
            assert f"<!-- {words} -->" in drawn


def test_a_picture_without_tokens_and_references(tmp_path: Path) -> None:
    rows = [{key: row[key] for key in ("item_id", "sample_index", "answer")} for row in make_rows(questions=4)]
    path = write_rows(tmp_path / "bare.parquet", rows)
    assert call(path, *QUICK, "--plot", tmp_path / "bare.svg").exit_code == 0
    drawn = (tmp_path / "bare.svg").read_text()
    assert "<!-- agreement with the whole pool (%) -->" in drawn
    assert "completion tokens" not in drawn


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rules", "nope"), "rule 'nope' is unknown"),
        (("--rules", "fixed"), None),
        (("--rules", ","), "--rules is empty"),
        (("--budget-samples", "nan"), "--budget-samples is nan"),
        (("--budget-samples", "-1"), "--budget-samples is -1.0"),
        (("--budget-samples", "three"), "'three' is no list of numbers"),
        (("--budget-tokens", "0"), "--budget-tokens is 0.0"),
        (("--repeats", "-1"), "--repeats is -1"),
        (("--workers", "0"), "--workers is 0"),
        (
            ("--columns", "answer=nowhere"),
            "no column 'nowhere' for answer; mend --columns. The columns there are: item_id",
        ),
        (("--columns", "gold=reference"), "'gold' is nothing a recorded sample has"),
        (("--plot", "picture.gif"), "a picture ends in .png"),
        (("--plot", "no/such/folder/p.png"), "is not there or cannot be written"),
        (("--evidence", "hope"), "'hope' is not one of"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_wrong_arguments_exit_with_2(samples: str, words: tuple[str, ...], said: str | None, as_json: bool) -> None:
    result = call(samples, *QUICK, *words, *(["--json"] if as_json else []))
    if said is None:
        assert result.exit_code == 0
        return
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    if as_json:
        assert said in json.loads(result.stdout)["error"]
    else:
        assert result.stdout == ""


@pytest.mark.parametrize("name", ["nowhere.parquet", "folder"])
def test_a_source_that_is_none_exits_with_2(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    result = call(tmp_path / name)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, pipeline.cli; print([m for m in ('ray', 'numpy', 'pyarrow', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_replay_itself_needs_no_ray(samples: str) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from pipeline.cli import main;"
        f"r = CliRunner().invoke(main, ['replay', {samples!r}, '--repeats', '1', '--json']);"
        "print(r.exit_code, [m for m in ('ray', 'torch', 'vllm', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0 []"
