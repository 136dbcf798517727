from datetime import UTC, datetime

import pytest

from pipeline.deadline import resolve_deadline
from pipeline.errors import SpecError
from tests.factories import make_spec

NOW = datetime(2030, 1, 31, 22, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("23:00", "2030-01-31T23:00:00+00:00"),
        ("06:00", "2030-02-01T06:00:00+00:00"),
        ("22:30", "2030-02-01T22:30:00+00:00"),
        ("22:30:01", "2030-01-31T22:30:01+00:00"),
        ("90m", "2030-02-01T00:00:00+00:00"),
        ("2h30m", "2030-02-01T01:00:00+00:00"),
        ("45s", "2030-01-31T22:30:45+00:00"),
        ("1.5h", "2030-02-01T00:00:00+00:00"),
        ("2030-02-03T04:05:06+02:00", "2030-02-03T04:05:06+02:00"),
        ("2030-02-03 04:05", "2030-02-03T04:05:00+00:00"),
    ],
)
def test_what_people_write(text, expected):
    assert resolve_deadline(text, NOW).isoformat() == expected


@pytest.mark.parametrize(
    "text", ["", "soon", "25:00", "12:60", "0s", "0h0m", "2030-01-31T22:30:00+00:00", "2001-01-01", "-5m"]
)
def test_what_cannot_be_read_or_has_passed_is_said_with_its_mend(text):
    with pytest.raises(SpecError, match=r"budget\.deadline") as caught:
        resolve_deadline(text, NOW)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("value", ["soon", 390, "25:61"])
def test_a_job_that_names_none_is_refused_before_it_runs(value):
    with pytest.raises(Exception, match="deadline"):
        make_spec(budget={"tokens": 10, "deadline": value})


def test_whether_it_has_passed_is_not_the_job_file_s_business():
    assert make_spec(budget={"tokens": 10, "deadline": "2001-01-01"}).budget.deadline == "2001-01-01"
