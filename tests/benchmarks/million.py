"""One market over a million questions in virtual time: how long, and how much memory.

    python -m tests.benchmarks.million [--questions 1000000] [--budget 5] [--pool 16] [--json]

Questions are made by resampling the recorded SmolLM2 samples: each takes ``pool`` samples of one recorded question,
chosen anew, under an id of its own; they are written to a temporary directory as Parquet with dictionary-encoded
columns and replayed once by the market, all in one process. Target for a million at mean 5: at most 10 minutes on
2 cores and 4 GB at the peak, and memory that hardly grows with the questions (compare ``--questions 100000``).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "smollm2_arithmetic_360x40.parquet"
MILLION = 1_000_000
TARGET_SECONDS = 600.0
TARGET_BYTES = 4 * 10**9
_FILE_QUESTIONS = 25_000
_GROUP_ROWS = 100_000


def write(folder: Path, questions: int, pool: int, seed: int) -> None:
    """Parquet files of ``questions`` questions with ``pool`` samples each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline.recording import Recording, Span

    rng = np.random.default_rng(seed)
    with Recording.open(str(DATA), {"item_id": "question_id", "reference": "gold"}) as recording:
        known = recording.read(Span(0, recording.questions))
    words = pa.array(known.answers)
    golds = pa.array(known.references)
    for first in range(0, questions, _FILE_QUESTIONS):
        count = min(_FILE_QUESTIONS, questions - first)
        source = rng.integers(0, len(known.item_ids), count)
        lengths = np.diff(known.starts)[source]
        rows = (known.starts[source][:, None] + rng.integers(0, lengths[:, None], (count, pool))).ravel()
        codes = known.answer[rows]
        ids = pa.array([f"q{number:08d}" for number in range(first, first + count)])
        of_question = pa.array(np.repeat(np.arange(count, dtype=np.int32), pool))
        table = pa.table(
            {
                "item_id": pa.DictionaryArray.from_arrays(of_question, ids),
                "sample_index": pa.array(np.tile(np.arange(pool, dtype=np.int64), count)),
                "answer": pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), words),
                "reference": pa.DictionaryArray.from_arrays(pa.array(np.repeat(source.astype(np.int32), pool)), golds),
                "completion_tokens": pa.array(known.tokens[rows]),
                "mean_logprob": pa.array(known.mean_logprob[rows]),
            }
        )
        pq.write_table(table, folder / f"samples-{first:08d}.parquet", row_group_size=_GROUP_ROWS)


def peak_bytes() -> int:
    """The most memory this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Replay what ``write`` wrote; in a process of its own, so that its peak is its own."""
    from budgets.evidence import Evidence
    from pipeline.recording import Recording
    from pipeline.replay import Question, Settings, replay

    began = time.perf_counter()
    with Recording.open(f"{arguments.folder}/*.parquet") as recording:
        scanned = time.perf_counter()
        settings = Settings(repeats=1, evidence=Evidence(arguments.evidence), workers=arguments.workers)
        result = replay(recording, Question("market", arguments.budget), settings)
    ended = time.perf_counter()
    return {
        "questions": result.questions,
        "mean_samples": result.mean_samples,
        "accuracy": result.accuracy,
        "scan_seconds": scanned - began,
        "seconds": ended - began,
        # Where others use the machine, this says what the replay itself took.
        "cpu_seconds": time.process_time(),
        "samples_a_second": result.mean_samples * result.questions / (ended - scanned),
        "peak_bytes": peak_bytes(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=MILLION)
    parser.add_argument("--budget", type=float, default=5.0, help="mean samples a question")
    parser.add_argument("--pool", type=int, default=16, help="samples recorded a question")
    parser.add_argument("--evidence", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        print(json.dumps(measure(arguments)))
        return
    if not DATA.exists():
        print(f"skipped: the recorded samples are not at {DATA}", file=sys.stderr)
        raise SystemExit(0)
    with tempfile.TemporaryDirectory(prefix="ponder-million-") as folder:
        write(Path(folder), arguments.questions, arguments.pool, arguments.seed)
        command = [sys.executable, "-m", "tests.benchmarks.million", *sys.argv[1:], "--folder", folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout)
    share = result["questions"] / MILLION
    result["seconds_for_a_million"] = result["seconds"] / share
    result["extrapolated"] = result["questions"] != MILLION
    result["target_seconds"], result["target_bytes"] = TARGET_SECONDS, TARGET_BYTES
    if arguments.json:
        print(json.dumps(result))
        return
    word = "extrapolated" if result["extrapolated"] else "measured"
    print(
        f"{result['questions']:,} questions at mean {result['mean_samples']:.2f}: {result['seconds']:.1f} s "
        f"({result['cpu_seconds']:.1f} s of CPU; of which {result['scan_seconds']:.1f} s to look through the files), "
        f"{result['samples_a_second']:,.0f} samples/s, peak {result['peak_bytes'] / 1e9:.2f} GB\n"
        f"a million, {word}: {result['seconds_for_a_million']:.0f} s; target {TARGET_SECONDS:.0f} s, "
        f"{TARGET_BYTES / 1e9:.0f} GB"
    )


if __name__ == "__main__":
    main()
