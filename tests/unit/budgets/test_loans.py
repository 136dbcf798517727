"""Loans by themselves: who is asked for how much, who holds what, and what a death leaves behind."""

from budgets.loans import Loans, Moves
from budgets.messages import LOAN_ITEMS, Borrowed, Lent, Loan, LoanRequest, ShardLease, WorkerReport


def lease_of(worker: str, shard_id: int) -> ShardLease | None:
    """Everybody holds the shards below 10."""
    return ShardLease(shard_id, 2, 0.5) if shard_id < 10 else None


def hear(loans: Loans, worker: str, **fields) -> Moves:
    return loans.report(WorkerReport(worker, 1, **fields), lease_of)


def full(loans: Loans, worker: str = "w", waiting: int = 10, slots: int = 4, **fields) -> Moves:
    return hear(loans, worker, inflight=slots, lendable=waiting, **fields)


def idle(loans: Loans, worker: str = "v", room: int = 4, **fields) -> Moves:
    return hear(loans, worker, capacity=room, borrows=room, **fields)


def matched(waiting: int, slots: int, *rooms: int) -> list[int]:
    """How many questions each of the idle workers gets, asked in turn."""
    loans = Loans()
    full(loans, "w", waiting, slots)
    for number, room in enumerate(rooms):
        idle(loans, f"v{number}", room)
    for number, _ in enumerate(rooms):
        loans.match(f"v{number}")
    return [request.count for request in loans.asked_of("w")]


def out(loans: Loans, shard_id: int = 3, items: tuple[str, ...] = ("a", "b"), borrower: str = "v") -> Lent:
    """A loan that is with its borrower; what the lender reports."""
    full(loans)
    idle(loans, borrower)
    assert loans.match(borrower) == ("w",)
    lent = Lent(loans.asked_of("w")[-1].loan_id, shard_id, items)
    assert full(loans, lent=(lent,)) == Moves((), (borrower,))
    return lent


def test_work_evens_out_over_all_slots_that_are_free():
    assert matched(10, 4, 4) == [7], "14 questions over 8 slots"
    assert matched(1, 4, 4) == [1]
    assert matched(4, 4, 8) == [4], "never more than wait"
    assert matched(8, 4, 4, 4) == [4, 4]
    assert matched(1000, 8, 8) == [LOAN_ITEMS]


def test_a_short_queue_is_left_alone():
    assert matched(15, 64, 64) == []
    assert matched(16, 64, 64) == [16]


def test_no_more_than_a_few_loans_are_asked_of_one_lender_at_once():
    assert matched(2000, 4, *[64] * 9) == [LOAN_ITEMS] * 4


def test_the_longest_queue_lends():
    loans = Loans()
    full(loans, "short", 5)
    full(loans, "long", 50)
    idle(loans)
    assert loans.match("v") == ("long",)
    full(loans, "long", 0)
    idle(loans, "v2")
    assert loans.match("v2") == ("short",), "who has nothing waiting any more is not asked"


def test_one_loan_at_a_time_is_on_its_way_to_a_borrower():
    loans = Loans()
    full(loans, waiting=1000)
    idle(loans)
    assert loans.match("v") == ("w",)
    assert loans.match("v") == ()
    lent = Lent(loans.asked_of("w")[0].loan_id, 3, ("a",))
    full(loans, waiting=900, lent=(lent,))
    assert loans.match("v") == (), "it does not know of the first one yet"
    idle(loans, borrowed=(Borrowed(lent.loan_id, returned=False),))
    assert loans.match("v") == ("w",)


def test_a_loan_from_beginning_to_end():
    loans = Loans()
    lent = out(loans)
    assert loans.asked_of("w") == ()
    assert loans.borrowed_by("v") == (Loan(lent.loan_id, 3, 2, 0.5, ("a", "b")),)
    assert idle(loans, borrowed=(Borrowed(lent.loan_id, returned=False),)) == Moves()
    assert loans.borrowed_by("v") == (Loan(lent.loan_id, 3, 2, 0.5, ()),), "its questions are told once"
    known = WorkerReport("w", 2, lent=(Lent(lent.loan_id, 3, None),))
    assert loans.back_to(known) == ()
    assert idle(loans, borrowed=(Borrowed(lent.loan_id, returned=True),)) == Moves((), ("w",))
    assert loans.borrowed_by("v") == ()
    assert loans.back_to(known) == (lent.loan_id,)
    assert loans.report(known, lease_of) == Moves(), "a report that repeats revives nothing"
    assert not loans.in_transit(WorkerReport("w", 3))


def test_what_is_on_its_way_is_known():
    loans = Loans()
    full(loans)
    idle(loans)
    assert not loans.in_transit(WorkerReport("w", 2))
    loans.match("v")
    assert loans.in_transit(WorkerReport("w", 2)), "it is asked to lend"
    lent = Lent(loans.asked_of("w")[0].loan_id, 3, ("a",))
    full(loans, lent=(lent,))
    assert not loans.in_transit(WorkerReport("w", 3, lent=(lent,)))
    assert loans.in_transit(WorkerReport("v", 2)), "it is to borrow"
    idle(loans, borrowed=(Borrowed(lent.loan_id, returned=False),))
    assert not loans.in_transit(WorkerReport("v", 3))
    idle(loans, borrowed=(Borrowed(lent.loan_id, returned=True),))
    assert loans.in_transit(WorkerReport("w", 4, lent=(lent,))), "it is to take back"


def test_a_loan_that_cannot_be_made_is_over():
    loans = Loans()
    full(loans)
    for lent_shard, items in ((0, ()), (10, ("a",))):  # nothing found; a shard that is not the lender's
        idle(loans)
        loans.match("v")
        lent = Lent(loans.asked_of("w")[0].loan_id, lent_shard, items)
        assert full(loans, lent=(lent,)) == Moves()
        assert loans.back_to(WorkerReport("w", 2, lent=(lent,))) == (lent.loan_id,)
        assert loans.borrowed_by("v") == ()


def test_a_dead_borrower_gives_back():
    loans = Loans()
    lent = out(loans)
    assert loans.lost("v") == Moves((), ("w",))
    assert loans.back_to(WorkerReport("w", 2, lent=(lent,))) == (lent.loan_id,)
    assert not loans.withholds(3)


def test_a_loan_whose_borrower_died_before_it_was_made_is_over():
    loans = Loans()
    full(loans)
    idle(loans)
    loans.match("v")
    (request,) = loans.asked_of("w")
    assert loans.lost("v") == Moves()
    assert loans.asked_of("w") == (request,), "the lender may have begun: it is heard first"
    assert isinstance(request, LoanRequest)
    lent = Lent(request.loan_id, 3, ("a",))
    assert full(loans, lent=(lent,)) == Moves()
    assert loans.back_to(WorkerReport("w", 2, lent=(lent,))) == (lent.loan_id,)


def test_a_dead_lenders_shard_is_withheld_until_the_last_borrower_lets_go():
    loans = Loans()
    first, second = out(loans, borrower="v"), out(loans, items=("c",), borrower="u")
    assert loans.lost("w") == Moves((), ("v", "u"))
    assert loans.withholds(3)
    (dropped,) = loans.borrowed_by("v")
    assert (dropped.dropped, dropped.items) == (True, ())
    assert idle(loans, "v", borrowed=(Borrowed(first.loan_id, returned=False),)) == Moves()
    assert loans.in_transit(WorkerReport("v", 2))
    assert idle(loans, "v", borrowed=(Borrowed(first.loan_id, returned=True),)) == Moves()
    assert loans.withholds(3)
    assert loans.lost("u") == Moves((3,), ()), "a borrower that dies lets go too"
    assert not loans.withholds(3)
    assert loans.borrowed_by("u") == ()
    assert second.loan_id != first.loan_id


def test_a_dead_lender_that_made_no_loan_withholds_nothing():
    loans = Loans()
    full(loans)
    idle(loans)
    loans.match("v")
    assert loans.lost("w") == Moves()
    assert not loans.withholds(3)
    full(loans, "other")
    assert loans.match("v") == ("other",), "its borrower may be served by another"
