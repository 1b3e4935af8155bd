"""The API: answers against the library and against its own description, limits, capacity, newer models."""

import json
import threading
import time

import jsonschema
import numpy as np
import pytest
from starlette.testclient import TestClient

from pad_jax.errors import UserError
from pad_jax.service import settings_from
from pad_jax.service.app import Service, application
from pad_jax.service.models import Served, sources
from pad_jax.serving.recommender import FALLBACK
from tests.service.conftest import MARKUP, TITLES
from tests.support.data import small_config
from tests.support.served import random_model

pytestmark = pytest.mark.xdist_group("service")  # its tests share programs


def described(client, method, path, answer):
    """The answer, held to /openapi.json."""
    operation = client.get("/openapi.json").json()["paths"][path][method]
    responses = operation["responses"]
    status = str(answer.status_code)
    known = responses.get(status) or responses[f"{status[0]}XX"]
    jsonschema.validate(answer.json(), known["content"]["application/json"]["schema"], jsonschema.Draft202012Validator)
    return answer.json()


def ask(client, **body):
    return described(client, "post", "/recommend", client.post("/recommend", json=body))


def error(client, status, path="/recommend", **body):
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    text = described(client, "post", path, answer)["error"]
    assert "\n" not in text
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    "dials",
    [
        {},
        {"k": 3},
        {"popularity": -0.7, "exclude": [*(f"i{n}" for n in range(5, 22, 2)), "nothing"]},
        {"diversity": 0.6, "k": 7},
        {"items": [f"i{n}" for n in range(9)], "exclude_history": False},
        {"explain": True, "k": 5},
    ],
)
def test_lists_are_those_of_the_library(client, models, dials):
    history = ["i1", "strange", "i4", "i2"]
    k = dials.get("k", 10)
    expected = models["first"].recommend([history], **{"k": 10} | dials)
    found = ask(client, history=history, **dials)
    assert (found["model"], found["known"], found["user"]) == ("first", 3, None)
    there = expected.items[0] != ""
    assert [one["item"] for one in found["items"]] == expected.items[0][there].tolist()
    assert len(found["items"]) == min(k, there.sum())
    np.testing.assert_allclose(
        [one["score"] for one in found["items"]], expected.scores[0][there], rtol=1e-4, atol=1e-5
    )
    assert [one["expert"] for one in found["items"]] == expected.experts[0][there].tolist()
    if "explain" in dials:
        assert [one["because"] for one in found["items"]] == expected.because[0].tolist()
    counts = models["first"].artifact.counts
    for one in found["items"]:
        number = int(one["item"][1:]) + 1
        assert one["title"] == TITLES[number - 1]
        assert one["count"] == counts[number]
        low, high = {"warm": (51, 99), "median": (7, 50), "cold": (1, 6), "unseen": (0, 0)}[one["group"]]
        assert low <= one["count"] <= high
        offset = dials.get("popularity", 0) * np.log1p(one["count"])
        assert sum(one["parts"].values()) + offset == pytest.approx(one["score"], abs=1e-4)


def test_lists_longer_than_what_is_made(serving, models):
    """k = 12 is cut from 22, all items; the candidates of a diverse list are the same."""
    with serving() as client:
        for diversity in (0.0, 0.5):
            found = ask(client, history=["i1", "i2"], k=12, diversity=diversity)
            expected = models["first"].recommend([["i1", "i2"]], k=12, diversity=diversity)
            assert [one["item"] for one in found["items"]] == expected.items[0].tolist()


def test_users_targets_and_those_without_a_history(client, models):
    history = models["first"].histories.filter(user="u3")["history"][0].to_list()
    found = ask(client, user="u3", k=4, model="second")
    expected = models["second"].recommend([history], k=4)
    assert [one["item"] for one in found["items"]] == expected.items[0].tolist()
    assert found["user"] == "u3"
    found = ask(client, history=history[:-1], target=history[-1])
    assert found["target"]["item"] == history[-1]
    assert found["target"]["rank"] == models["first"].ranks([history[:-1]], [history[-1]])[0]
    nobody = ask(
        client, history=["strange"], k=3, exclude=["i1"], items=["i0", "i1", "i3", "i9"], target="i2", explain=True
    )
    assert [one["item"] for one in nobody["items"]] == ["i0", "i3", "i9"]  # counts fall with the number
    assert {one["expert"] for one in nobody["items"]} == {FALLBACK}
    assert nobody["known"] == 0
    assert nobody["target"]["rank"] is None
    everything = ask(client, history=[], k=5)
    assert [one["item"] for one in everything["items"]] == models["first"].popular(5).items[0].tolist()


def test_similar_items_search_users_models_health(client, models):
    found = described(client, "get", "/similar", client.get("/similar?item=i3&item=i5&by=text&k=4"))
    again = described(
        client, "post", "/similar", client.post("/similar", json={"items": ["i3", "i5"], "by": "text", "k": 4})
    )
    assert found == again
    expected = models["first"].similar_items(["i3", "i5"], 4, "text")
    for row, own in enumerate(found["similar"]):
        assert [one["item"] for one in own["items"]] == expected.items[row].tolist()
    found = described(client, "get", "/items", client.get("/items", params={"query": "creme BRUL", "k": 3}))
    assert [one["item"] for one in found["items"]] == ["i11", "i12", "i13"]
    assert client.get("/items", params={"query": "tea"}).json()["items"][0]["item"] == "i21"  # Teapot begins with it
    assert client.get("/items", params={"query": "i10"}).json()["items"][0]["title"] == MARKUP
    assert [one["item"] for one in client.get("/items?item=i2&item=none&item=i1").json()["items"]] == ["i2", "i1"]
    found = described(client, "get", "/users", client.get("/users?query=u1"))
    assert found["users"] == ["u1", "u10", "u11"]
    assert len(described(client, "get", "/users", client.get("/users?random=1&k=3"))["users"]) == 3
    found = described(client, "get", "/users", client.get("/users?user=u3"))
    assert [one["item"] for one in found["history"]] == [f"i{n}" for n in range(3, 9)]
    assert found["last_unseen"]
    assert not client.get("/users?user=u4").json()["last_unseen"]
    told = described(client, "get", "/models", client.get("/models"))["models"]
    assert [one["name"] for one in told] == ["first", "second"]
    assert told[0]["similar_by"] == ["fused", "id", "aligned", "text"]
    assert described(client, "get", "/health", client.get("/health"))["status"] == "ok"
    ask(client, history=["i1"])
    text = client.get("/metrics").text
    assert 'pad_jax_requests_total{route="/recommend",status="200"} 1.0' in text
    assert 'pad_jax_model_loads_total{model="first",result="ok"} 1.0' in text


def test_the_description_names_every_field_and_route(client):
    document = client.get("/openapi.json").json()
    routes = {route.path for route in client.app.routes} - {"/", "/metrics", "/openapi.json"}
    assert set(document["paths"]) == routes
    for path in ("/recommend", "/similar"):
        schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        names = error(client, 400, path, nonsense=1).partition("one of ")[2].split(", ")
        assert set(schema["properties"]) == set(names)
    for path, operations in document["paths"].items():
        if "get" in operations and "parameters" in operations["get"]:
            told = client.get(path, params={"nonsense": "1"}).json()["error"].partition("one of ")[2].split(", ")
            assert {one["name"] for one in operations["get"]["parameters"]} == set(told)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "name a user or a history"),
        ({"user": "u1", "history": ["i1"]}, 400, "name a user or a history"),
        ({"history": "i1"}, 400, "history must be a list of ids"),
        ({"history": [None]}, 400, "history[0] must be an id"),
        ({"history": [1.5]}, 400, "history[0] must be an id"),
        ({"history": [["i1"]]}, 400, "history[0] must be an id"),
        ({"history": ["i1"] * 9}, 400, "history has 9 ids, more than 8"),
        ({"history": ["i1"], "items": ["i1"] * 6}, 400, "items has 6 ids, more than 5"),
        ({"history": ["i1"], "items": []}, 400, "the model knows none of them"),
        ({"history": ["i1"], "items": ["x\ny"]}, 400, "the model knows none of them"),
        ({"history": ["i1"], "exclude": ["i1"] * 6}, 400, "exclude has 6 ids, more than 5"),
        ({"history": ["i1"], "k": 0}, 400, "k must be a whole number from 1 to 20"),
        ({"history": ["i1"], "k": 21}, 400, "k must be a whole number from 1 to 20"),
        ({"history": ["i1"], "k": True}, 400, "k must be a whole number"),
        ({"history": ["i1"], "k": 2.5}, 400, "k must be a whole number"),
        ({"history": ["i1"], "popularity": "1"}, 400, "popularity must be a number from -100 to 100"),
        ({"history": ["i1"], "popularity": 1e300}, 400, "popularity must be a number"),
        ({"history": ["i1"], "diversity": 1}, 400, "diversity must be a number from 0 to below 1"),
        ({"history": ["i1"], "explain": "yes"}, 400, "explain must be true or false"),
        ({"history": ["i1"], "histroy": 1}, 400, "unknown field 'histroy'"),
        ({"history": ["i1"], "model": "third"}, 404, "there is no model 'third': it is one of first, second"),
        ({"history": ["i1"], "target": "none"}, 404, "target: there is no item 'none'"),
        ({"user": "nobody"}, 404, "there is no history of user 'nobody'"),
    ],
)
def test_what_is_refused(serving, body, status, message):
    with serving(history=8, ids=5, k=20) as client:
        assert message in error(client, status, **body)


def test_what_is_refused_elsewhere(serving):
    with serving(body=100, ids=5) as client:
        for path, status, message in (
            ("/similar", 400, "name from 1 to 5 items"),
            ("/similar?item=none", 404, "there is no item 'none'"),
            ("/similar?item=i1&by=words", 400, "by='words' has no vectors in this model"),
            ("/similar?item=i1&k=x", 400, "k must be"),
            ("/items?query=a&query=b", 400, "query is given twice"),
            (f"/items?query={'a' * 201}", 400, "at most 200 letters"),
            ("/users?user=nobody", 404, "no history of user"),
            ("/nothing", 404, "no such path"),
            ("/recommend", 405, "another method"),
        ):
            answer = client.get(path)
            assert answer.status_code == status
            assert message in answer.json()["error"]
        for body, status in ((b"{" + b" " * 200, 413), (b"[1]", 400), (b"\xff", 400), (b'{"k": NaN}', 400), (b"", 400)):
            answer = client.post("/recommend", content=body)
            assert answer.status_code == status
            assert list(answer.json()) == ["error"]
        deep = client.post("/recommend", content=b"[" * 99)
        assert deep.status_code == 400
    with serving(users=False) as client:
        assert client.get("/users?user=u3").status_code == 404
        assert client.post("/recommend", json={"user": "u3"}).status_code == 404


def test_headers_and_origins(serving):
    with serving() as client:
        answer = client.get("/health", headers={"origin": "https://shop.example"})
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = client.get("/").headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe" not in policy
    with serving(origins=("https://shop.example",)) as client:
        for origin, allowed in (("https://shop.example", "https://shop.example"), ("https://other.example", None)):
            answer = client.get("/health", headers={"origin": origin})
            assert answer.headers.get("access-control-allow-origin") == allowed


def test_an_unexpected_error_is_one_line(serving, tmp_path, monkeypatch, capsys):
    with serving() as client:
        monkeypatch.setattr(Served, "lists", lambda *_: 1 / 0)
        answer = client.post("/recommend", json={"history": ["i1"]})
        assert (answer.status_code, answer.json()) == (500, {"error": "an error that nobody expected"})
        said = capsys.readouterr().err
        assert said.startswith("/recommend: ZeroDivisionError; its traceback is in ")
        assert "1 / 0" in next(tmp_path.glob("error-*.txt")).read_text()
        monkeypatch.setattr(Served, "lists", lambda *_: (_ for _ in ()).throw(MemoryError()))
        answer = client.post("/recommend", json={"history": ["i1"]})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_over_capacity(serving, monkeypatch):
    """Of two places one is worked on and one waits: the next are refused, and what had a place is answered."""
    let, began, real = threading.Event(), threading.Event(), Served.lists

    def slow(self, options, asked):
        began.set()
        assert let.wait(20)
        return real(self, options, asked)

    with serving(waiting=2) as client:
        monkeypatch.setattr(Served, "lists", slow)
        found = []
        threads = [
            threading.Thread(
                target=lambda: found.append(client.post("/recommend", json={"history": ["i1"]}).status_code)
            )
            for _ in range(2)
        ]
        threads[0].start()
        assert began.wait(20)
        threads[1].start()
        while client.service.batches.waiting < 2:
            time.sleep(0.001)
        for _ in range(3):
            answer = client.post("/recommend", json={"history": ["i1"]})
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            assert described(client, "post", "/recommend", answer)["error"] == "too many requests wait; try again"
        assert client.get("/health").status_code == 200
        let.set()
        for thread in threads:
            thread.join()
        assert found == [200, 200]


def test_a_newer_model_is_swapped_in_under_load(tmp_path, models, capsys):
    """Every answer is of one of the two models, whole; none is dropped; the later ones are of the newer."""
    models["first"].save(tmp_path / "m")
    newer = random_model(small_config(), [*TITLES, "Brand new"], seed=9)
    lists = [tuple(m.recommend([["i1", "i2"]], k=5).items[0]) for m in (models["first"], newer)]
    assert lists[0] != lists[1]
    service = Service(sources([tmp_path / "m"]), settings_from({"reload": 0.05, "batch": 4}))
    answers, stop = [], threading.Event()
    with TestClient(application(service), base_url="http://127.0.0.1") as client:

        def load():
            while not stop.is_set():
                answer = client.post("/recommend", json={"history": ["i1", "i2"], "k": 5})
                answers.append((answer.status_code, answer.json()))

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        while len(answers) < 10:
            time.sleep(0.01)
        newer.save(tmp_path / "m")
        until = time.monotonic() + 60
        while len(service.models["m"].number) == len(TITLES) and time.monotonic() < until:
            time.sleep(0.01)
        seen = len(answers)
        while len(answers) < seen + 10:
            time.sleep(0.01)
        (tmp_path / "m" / "model.safetensors").write_bytes(b"broken")
        while "still served" not in (said := capsys.readouterr().err):
            assert time.monotonic() < until
            time.sleep(0.02)
        assert "m: the model before is still served: " in said
        assert client.get("/health").json()["models"]["m"] == service.models["m"].seal
        told = client.get("/metrics").text
        assert 'pad_jax_model_loads_total{model="m",result="ok"} 2.0' in told
        assert 'pad_jax_model_loads_total{model="m",result="failed"} 1.0' in told
        stop.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in answers} == {200}
    of = {service.models["m"].seal: lists[1]}
    for _, answer in answers:
        assert tuple(one["item"] for one in answer["items"]) == of.get(answer["version"], lists[0])
    assert len({answer["version"] for _, answer in answers}) == 2
    assert answers[-1][1]["version"] == service.models["m"].seal


def test_names_are_different(folders, tmp_path):
    (tmp_path / "run").mkdir()
    (folders[0]).rename(tmp_path / "run" / "model")
    found = sources([tmp_path / "run", tmp_path / "run" / "model", folders[1]])
    assert [one.name for one in found] == ["run", "run-2", "second"]
    assert [one.served().seal != "" for one in found] == [True] * 3
    with pytest.raises(UserError, match="is missing"):
        sources([tmp_path / "nowhere"])[0].served()


def test_plain_json(client):
    """What no encoding knows comes back as it was sent, in ASCII."""
    answer = client.post("/recommend", content=b'{"history": ["\\ud800"], "model": "\\ud800\\u2028"}')
    assert answer.status_code == 404
    assert answer.content.isascii()
    assert json.loads(answer.content)["error"].startswith("there is no model ")
