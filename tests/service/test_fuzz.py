"""Requests of nonsense: `python -m benchmarks.service --fuzz 10000` sends more."""

import pytest

pytest.importorskip("torch", reason="the benchmarks need torch")

from benchmarks.service import fuzz

pytestmark = pytest.mark.xdist_group("service")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_nonsense_is_refused_in_one_line(serving, seed):
    with serving(body=20_000, ids=30, history=30) as client:

        def send(method, path, body, headers):
            answer = client.request(method, path, content=body, headers=headers)
            return answer.status_code, answer.content

        statuses = fuzz(send, 400, seed)
    assert set(statuses) >= {200, 400, 404, 405}
