"""What questions teach counts once: whoever asks them, however often, and whatever dies on the way."""

import json
from pathlib import Path

import pytest

from actors.engines.scripted import ScriptedEngine
from actors.recovery import restore_market
from budgets.experience import Lesson, total
from budgets.messages import ShardState, WorkerReport
from budgets.thresholds import seen
from pipeline.errors import EngineError, StoreError
from pipeline.spec import JobSpec
from pipeline.store import Store
from tests.unit.actors.test_loans import Crew, MortalEngine, make_slow_job
from tests.unit.actors.test_station import ALL, begin, ids, make_job, outcome, work

CASCADE = {
    "kind": "cascade",
    "evidence": "votes",
    "stages": [{"max_samples": 6}, {"temperature": 0.3, "max_samples": 4}],
    "learn_threshold": True,
    "audit_fraction": 1,
}
"""Its first stage teaches that it was asked, by each question once."""


def committed(store: Store) -> dict:
    """All lessons of the commits that stand."""
    return total([dict(commit.lessons) for commit in store.commits().values()])


def heard(spec: JobSpec) -> dict:
    """What a new worker of the run is told."""
    store = Store.open(spec.output)
    market = restore_market(store, spec.budget.tokens, store.read_plan())
    return dict(market.sync(WorkerReport("new", 1)).lessons)


def counted(lessons: dict) -> dict:
    """Without costs: sums of fractions depend on their order."""
    return {subject: (lesson.count, lesson.reward, lesson.squares) for subject, lesson in lessons.items()}


def asked(lessons: dict) -> int:
    """Questions that taught that the first stage was asked."""
    return sum(lesson.count for (name, _), lesson in lessons.items() if name == seen("cascade/1"))


def agreeing(lessons: dict) -> int:
    return sum(lesson.count for (name, _), lesson in lessons.items() if name == "cascade/1")


@pytest.mark.parametrize("lives", [["w-0"], ["w-0", "w-1"]])
async def test_every_question_teaches_once_and_a_resumed_run_knows_it(tmp_path, lives):
    spec = make_job(tmp_path, strategy=CASCADE)
    await work(spec, lives)
    lessons = committed(Store.open(spec.output))
    assert (asked(lessons), agreeing(lessons)) == (len(ALL), len(ALL))
    assert counted(heard(spec)) == counted(lessons)


async def test_questions_that_go_on_in_another_generation_teach_anew_not_again(tmp_path):
    spec = make_job(tmp_path, strategy=CASCADE, budget={"tokens": 900})
    await work(spec, ["w-0"])
    larger = make_job(tmp_path, strategy=CASCADE, budget={"tokens": 100_000})
    await work(larger, ["w-1"])
    commits = Store.open(spec.output).commits()
    assert max(commit.generation for commit in commits.values()) > 0
    lessons = committed(Store.open(spec.output))
    assert (asked(lessons), agreeing(lessons)) == (len(ALL), len(ALL))
    assert counted(heard(spec)) == counted(lessons)


async def test_a_lent_question_teaches_at_its_lender_alone(tmp_path):
    crew = Crew(make_slow_job(tmp_path, strategy=CASCADE))
    await crew.work(ScriptedEngine(crew.spec), ScriptedEngine(crew.spec))
    assert sum(map(len, crew.lent.values())) > 0
    lessons = committed(crew.store)
    assert (asked(lessons), agreeing(lessons)) == (len(ALL), len(ALL))
    assert counted(dict(crew.market.sync(WorkerReport("new", 1)).lessons)) == counted(lessons)


async def test_what_a_dead_worker_had_learnt_of_an_open_shard_is_learnt_from_its_journal(tmp_path):
    crew = Crew(make_slow_job(tmp_path, strategy=CASCADE))
    await crew.live("w-0", MortalEngine(crew.spec, lambda finished: finished >= 80))
    await crew.judge.close()
    assert crew.gone == {"w-0"}
    lessons = committed(crew.store)
    assert (asked(lessons), agreeing(lessons)) == (len(ALL), len(ALL))
    assert counted(dict(crew.market.sync(WorkerReport("new", 1)).lessons)) == counted(lessons)


async def test_a_run_that_is_resumed_half_way_goes_on_with_what_its_commits_know(tmp_path):
    spec = make_job(tmp_path, strategy=CASCADE)

    class Dying(ScriptedEngine):
        async def generate(self, request):
            if request.item_id >= "q014":
                raise EngineError("the engine core died")
            return await super().generate(request)

    # One shard at a time: the first two are committed before the third is begun.
    spec = spec.model_copy(update={"cluster": spec.cluster.model_copy(update={"max_open_questions": 7})})
    with pytest.raises(EngineError):
        await work(spec, ["w-0"], Dying(spec))
    store = Store.open(spec.output)
    assert set(store.commits()) == {0, 1}
    assert asked(heard(spec)) == 14
    store.record_death("w-0")
    await work(spec, ["w-1"])
    assert ids(outcome(spec)[0]) == ALL
    assert asked(heard(spec)) == asked(committed(store)) == len(ALL)


async def test_commits_of_before_there_were_lessons_open_and_know_nothing(tmp_path):
    spec = make_job(tmp_path, strategy=CASCADE)
    await work(spec, ["w-0"])
    for path in (Path(spec.output) / "commits").iterdir():
        raw = json.loads(path.read_text())
        del raw["lessons"]
        path.write_text(json.dumps(raw))
    assert heard(spec) == {}
    path.write_text(json.dumps({**raw, "lessons": [["no", "lesson"]]}))
    with pytest.raises(StoreError, match="its lessons cannot be read"):
        Store.open(spec.output).commits()


def test_the_market_passes_on_what_all_other_shards_taught(tmp_path):
    market = restore_market(begin(make_job(tmp_path)), 1000, begin(make_job(tmp_path)).read_plan())
    mine, other = (("arm", "a"), Lesson(3, 1.5, 1.0, 30.0)), (("arm", "a"), Lesson(2, 2.0, 2.0, 8.0))

    def say(worker: str, seq: int, *states: ShardState, wants: int = 0):
        return market.sync(WorkerReport(worker, seq, shards=states, wants_shards=wants, capacity=1))

    def state(shard_id: int, *lessons, committed: bool = False) -> ShardState:
        return ShardState(shard_id, 0, 0 if committed else 1, 7 if committed else 1, 10, committed, lessons=lessons)

    assert [lease.shard_id for lease in say("a", 1, wants=1).open_shards] == [0]
    assert [lease.shard_id for lease in say("b", 1, wants=1).open_shards] == [1]
    assert say("a", 2, state(0, mine)).lessons == ()
    assert say("b", 2, state(1, other)).lessons == (mine,)
    # A shard it does not hold, or holds no more, teaches nothing.
    assert say("b", 3, state(1, other), state(0, other), state(0, other)).lessons == (mine,)
    # Said again, or told later, it replaces what was said.
    assert say("a", 3, state(0, mine)).lessons == (other,)
    both = (("arm", "a"), Lesson(5, 3.5, 3.0, 38.0))
    assert say("a", 4, state(0, mine, committed=True)).lessons == (both,), "a committed shard is held no more"
    assert say("a", 5).lessons == (both,)
    market.worker_lost("b", 0)
    assert say("a", 6).lessons == (both,), "until its shard is asked again"
    assert [lease.shard_id for lease in say("a", 7, wants=1).open_shards] == [1]
    assert say("a", 8, state(1)).lessons == (mine,)
