"""The strategy files that are shipped can be compared."""

from pathlib import Path

from pipeline.strategy_files import load_strategies

FOLDER = Path(__file__).resolve().parents[3] / "jobs" / "examples" / "strategies"


def test_every_file_is_a_strategy():
    paths = sorted(FOLDER.glob("*.yaml"))
    found = load_strategies(",".join(map(str, paths)))
    assert [one.name for one in found] == [path.stem for path in paths]
    assert {"vote", "best_of_n", "adaptive", "retire_on_pass"} <= {one.name for one in found}
