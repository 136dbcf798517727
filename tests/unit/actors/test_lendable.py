"""How many questions a worker says it could lend: what it would lend, counted no further than is of use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import loans
from actors.loans import LoanDesk, Place
from tests.unit.actors.test_station import make_job, work


class Engaged:
    """So many questions wait, some with money and slots."""

    def __init__(self, places: list[Place]) -> None:
        self.places, self.looked = places, 0

    def queued(self) -> list[Place]:
        return self.places

    def waiting(self):
        for place in self.places:
            self.looked += 1
            yield place


class Host:
    def __init__(self, kept: set[Place]) -> None:
        self.kept = kept

    def may_lend(self, place: Place) -> bool:
        return place not in self.kept


@given(places=st.sets(st.tuples(st.integers(0, 2), st.text("abc", max_size=2))), data=st.data())
def test_as_many_as_would_be_lent(places, data):
    kept = data.draw(st.sets(st.sampled_from(sorted(places)))) if places else set()
    desk = LoanDesk(None, Engaged(sorted(places)), Host(kept))
    assert desk.lendable() == len(desk._candidates()) == len(places - kept)


def test_it_stops_counting(monkeypatch):
    monkeypatch.setattr(loans, "COUNTED", 5)
    engaged = Engaged([(0, str(number)) for number in range(1000)])
    assert LoanDesk(None, engaged, Host(set())).lendable() == 5
    assert engaged.looked <= 6


@pytest.mark.parametrize("slots", [1, 3, 8])
async def test_a_worker_counts_what_it_queues(slots, tmp_path, monkeypatch):
    counts = []

    def both(self):
        counts.append(len(list(self._engaged.waiting())))
        assert counts[-1] == len(self._engaged.queued())
        return 0

    monkeypatch.setattr(LoanDesk, "lendable", both)
    model = {"max_num_seqs": slots, "options": {"seconds": 0.002}}
    spec = make_job(tmp_path, model=model, strategy={"kind": "self_consistency", "min_samples": 2})
    await work(spec, ["w-0"])
    assert max(counts) > slots
