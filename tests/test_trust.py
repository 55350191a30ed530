"""What others may bring about: whoever wrote a description, and whoever made a page that the browser shows."""

from __future__ import annotations

import http.client
import json
import re

import pytest
from click.testing import CliRunner
from distributed import Scheduler
from services import ENV, Processes

import mandeldask as md
from mandeldask import explorer
from mandeldask.cli import cli
from mandeldask.cluster import origins
from mandeldask.config import LocalCluster
from mandeldask.job import runs

RUN = {"view": {"x": [-2, 1], "y": [-1.5, 1.5], "shape": [20, 20]}, "max_iter": 9, "store": "a.zarr"}
FILM = {"centre": [0, 0], "from": 3, "to": 0.1, "size": [64, 64], "fps": 2, "seconds": 1, "out": "film.mp4"}
EVIL = {"kind": "class", "type": "evil.Cluster"}
CLUSTERS = {
    "class": EVIL,
    "batch system": {"kind": "slurm", "cores": 1, "memory": "1GiB", "options": {"job_script_prologue": ["touch ran"]}},
    "address": {"kind": "address", "address": "tcp://127.0.0.1:1"},  # its answers would be pickles
    "scheduler file": {"kind": "scheduler-file", "path": "evil.json"},
}
COMMANDS = {"run": "run.yaml", "submit": "run.yaml", "explore": "run.yaml", "zoom": "film.yaml"}


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A folder of a stranger's, with a module that leaves a mark when it is imported; the function writes a cluster."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("mandeldask.explorer.serve", lambda *_: pytest.fail("it is served"))
    (tmp_path / "evil.py").write_text("open('ran', 'w').close()\nraise SystemError('so much for that')")

    def write(cluster):
        (tmp_path / "run.yaml").write_text(json.dumps(RUN | {"cluster": cluster}))
        (tmp_path / "film.yaml").write_text(json.dumps(FILM | {"cluster": cluster}))
        (tmp_path / "cluster.yaml").write_text(json.dumps(cluster))
        return tmp_path / "ran"

    return write


def call(*words):
    result = CliRunner().invoke(cli, words, prog_name="mandeldask")
    return result.exit_code, result.output


@pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_description_brings_no_cluster_that_could_run_code(evil, command, cluster):
    ran = evil(cluster)
    code, said = call(command, COMMANDS[command])
    assert (code, len(said.splitlines())) == (2, 1), said
    assert f"a cluster of kind {cluster['kind']}, which can run any program as you" in said
    assert "add --trust" in said
    assert not ran.exists()


@pytest.mark.parametrize("words", [["--trust"], ["--cluster", "cluster.yaml"]], ids=lambda words: words[0])
def test_a_cluster_that_is_trusted_or_named_is_used(evil, words):
    ran = evil(EVIL)
    code, said = call("run", "run.yaml", "--no-image", *words)
    assert (code, "cannot start evil.Cluster" in said, ran.exists()) == (5, True, True), said


def test_a_cluster_that_is_named_takes_the_place_of_the_descriptions(evil, monkeypatch):
    def enough(*_):
        raise md.StoreError("enough")

    monkeypatch.setattr(runs, "drive", enough)
    ran = evil(EVIL)
    code, said = call("run", "run.yaml", "--no-image", "--cluster", "local")
    assert (code, said.splitlines()[-1], ran.exists()) == (3, "mandeldask: enough", False), said


def test_in_python_a_mapping_is_the_callers_own_and_a_file_is_not(evil, client):
    ran = evil(EVIL)
    for call_it in (md.run, md.submit):
        with pytest.raises(md.ConfigError, match="trust=True"):
            call_it("run.yaml")
    with pytest.raises(md.ConfigError, match="trust=True"):
        explorer.explore(explorer.open_scene("run.yaml"))
    assert md.run("run.yaml", client=client).failed == 0
    assert not ran.exists()
    with pytest.raises(md.ClusterError, match=r"cannot start evil\.Cluster"):
        md.run(RUN | {"cluster": EVIL})
    assert ran.exists()


def test_a_local_cluster_of_a_description_needs_no_trust():
    local = runs.read_description(RUN | {"cluster": {"workers": 2}}, (), None, trust=False)
    assert runs.read_description(local, (), None, trust=False).cluster == LocalCluster(workers=2)


# The dashboard


def answer(port, path, host, **headers):
    """Status and body of a request to a dashboard, as a browser sends it that takes `host` for its name."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers={"Host": host, **headers})
        found = connection.getresponse()
        return found.status, b"" if found.status == 101 else found.read()
    finally:
        connection.close()


def token_of(port):
    """What the page /status is given to open its websocket with."""
    return re.search(r'"token":"([^"]+)"', answer(port, "/status", f"127.0.0.1:{port}")[1].decode())[1]


def websocket(port, token, host, origin):
    """The status of a websocket's opening by a page of that origin."""
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Protocol": f"bokeh, {token}",
        "Origin": origin,
    }
    return answer(port, "/status/ws", host, **upgrade)[0]


def test_a_cluster_of_ours_shows_its_dashboard_to_its_own_pages_alone(client):
    port = client.cluster.scheduler.http_server.port
    token = token_of(port)
    for own in (f"127.0.0.1:{port}", f"localhost:{port}", "localhost:9999", "LOCALHOST", "[::1]:9999"):  # tunnels too
        assert websocket(port, token, own, f"http://{own}") == 101
        assert answer(port, "/json/counts.json", own)[0] == 200
    ours = f"127.0.0.1:{port}"
    for site in (f"http://localhost:{port}", f"http://127.0.0.1:{port + 1}", "http://evil.example", "null", "http://["):
        assert websocket(port, token, ours, site) == 403
    for name in ("evil.example", f"127.0.0.1.evil.example:{port}", f"localhost.evil.example:{port}", "["):
        assert websocket(port, token, name, f"http://{name}") == 403
        for path in ("/status", "/json/counts.json", "/info/main/workers.html", "/sitemap.json", "/none"):
            status, said = answer(port, path, name)
            assert (status, b"answers its own pages alone" in said) == (403, True)


def test_a_dask_that_takes_no_check_of_its_pages_is_told_of(caplog):
    origins.guard(object.__new__(Scheduler))  # whose web server is not where it was
    assert "pages of other sites can read the dashboard" in caplog.text


def test_a_name_of_dasks_setting_reaches_a_scheduler_that_preloads_the_check(tmp_path):
    env = {
        "DASK_DISTRIBUTED__SCHEDULER__PRELOAD": "mandeldask.cluster.origins",
        f"DASK_{origins.SETTING.replace('.', '__').replace('-', '_').upper()}": "['hub.example.org', 'b:81']",
    }
    with Processes(tmp_path, workers=0, env=ENV | env) as dask, dask.client() as client:
        port = int(client.dashboard_link.removesuffix("/status").rpartition(":")[2])
        token = token_of(port)
        for name in ("hub.example.org", f"127.0.0.1:{port}"):  # a proxy may put its own name into Host, or leave it
            assert websocket(port, token, name, "http://hub.example.org") == 101
        assert websocket(port, token, "b:81", "http://b:81") == 101
        for name in ("evil.example", "b:82", "b"):
            assert websocket(port, token, name, f"http://{name}") == 403
