"""TLS with right certificates, and one message for every wrong one."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys

import pytest
from services import ENV, ROOT, Processes, make_certificates

import mandeldask as md
from mandeldask import cluster as clusters
from mandeldask.cluster import scheduler
from mandeldask.config import load_cluster
from mandeldask.store import open_store

CONFIG = {"view": {"x": [-2, 1], "y": [-1.5, 1.5], "shape": [100, 120]}, "max_iter": 100, "tile": [50, 60]}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls(tmp_path_factory, certificates):
    """A scheduler and a worker that speak TLS only."""
    options = {"tls": certificates["server"], "client_tls": certificates["client"]}
    with Processes(tmp_path_factory.mktemp("tls"), workers=1, **options) as dask:
        yield dask


def described(address, files):
    return {"kind": "address", "address": address, **{key: str(path) for key, path in files.items()}}


@pytest.fixture(scope="module")
def whole(client, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    md.run(CONFIG, path, client=client)
    return open_store(path).checksum()


def test_a_run_over_tls_gives_the_checksum_of_a_local_one(tls, certificates, tmp_path, whole):
    md.run(CONFIG, tmp_path / "a.zarr", cluster=described(tls.address, certificates["client"]))
    assert open_store(tmp_path / "a.zarr").checksum() == whole


def test_the_certificates_of_dasks_settings_are_used_where_none_is_named(tls, certificates, tmp_path, whole):
    (tmp_path / "run.yaml").write_text(json.dumps(CONFIG))
    files = certificates["client"]
    env = ENV | {
        "DASK_SCHEDULER_ADDRESS": tls.address,
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(files["ca_file"]),
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT": str(files["cert"]),
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY": str(files["key"]),
    }
    command = [sys.executable, "-m", "mandeldask", "run", "run.yaml", "--out", "a.zarr", "--quiet", "--no-image"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=90)
    assert (done.returncode, done.stderr) == (0, "")
    assert open_store(tmp_path / "a.zarr").checksum() == whole


def test_a_job_takes_its_certificates_along_into_another_process(tls, certificates, tmp_path, whole):
    submitted = md.submit(CONFIG, tmp_path / "a.zarr", cluster=described(tls.address, certificates["client"]))
    program = "import pickle, sys; print(pickle.load(sys.stdin.buffer).wait(90).words)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=ENV, input=pickle.dumps(submitted), capture_output=True, check=True, timeout=120)
    assert done.stdout == b"finished: 4/4 tiles\n"
    assert submitted.status().exit_code == 0
    assert open_store(tmp_path / "a.zarr").checksum() == whole


WRONG = ["another authority", "not of the authority", "expired", "none", "none but the authority", "another's key"]
WRONG += ["no PEM", "tls on tcp"]


@pytest.mark.parametrize("wrong", WRONG)
def test_every_wrong_certificate_gets_the_same_message(tls, certificates, monkeypatch, tmp_path, wrong):
    monkeypatch.setattr(scheduler, "ANSWER_SECONDS", 1.0)
    good, another = certificates["client"], certificates["another"]
    files = {
        "another authority": another,
        "not of the authority": another | {"ca_file": good["ca_file"]},
        "expired": certificates["expired"],
        "none": {},
        "none but the authority": {"ca_file": good["ca_file"]},
        "another's key": good | {"key": another["key"]},
        "no PEM": good | {"cert": __file__},
        "tls on tcp": good,
    }[wrong]
    if wrong == "tls on tcp":
        with Processes(tmp_path, workers=0) as plain:
            refused(described(plain.address.replace("tcp://", "tls://"), files))
    else:
        refused(described(tls.address, files))


def refused(description):
    with pytest.raises(md.ClusterError) as caught, clusters.connect(load_cluster(description)):
        pass
    message = str(caught.value)
    assert message.startswith(f"no TLS connection with {description['address']} (")
    assert "Both sides need TLS (tls:// here, --protocol tls there)" in message
    assert "openssl x509 -noout -issuer -dates" in message


def test_an_address_without_tls_is_told_that_the_scheduler_may_want_it(tls, monkeypatch):
    monkeypatch.setattr(scheduler, "ANSWER_SECONDS", 1.0)
    address = tls.address.replace("tls://", "tcp://")
    with pytest.raises(md.ClusterError, match="wants TLS"), clusters.connect(load_cluster(address)):
        pass


def test_a_file_that_is_not_there_is_named(tls, certificates):
    with (
        pytest.raises(md.ClusterError, match=r"cannot read the certificate none\.pem: No such file"),
        clusters.connect(load_cluster(described(tls.address, certificates["client"] | {"cert": "none.pem"}))),
    ):
        pass


def test_the_commands_of_the_readme_make_certificates_that_work(tmp_path):
    """The first commands of its TLS section, as they stand there, and then its scheduler and worker."""
    text = (ROOT / "mandeldask/cluster/README.md").read_text().partition("## TLS")[2]
    block = re.search(r"```console\n(.*?)```", text, re.DOTALL)[1]
    script = re.sub(r"^\$ ", "", block.partition("$ dask scheduler")[0], flags=re.MULTILINE)
    subprocess.run(["bash", "-ec", script], cwd=tmp_path, check=True, capture_output=True)
    files = {
        name: {"ca_file": tmp_path / "ca.pem", "cert": tmp_path / f"{name}.pem", "key": tmp_path / f"{name}.key"}
        for name in ("server", "client")
    }
    with (
        Processes(tmp_path / "dask", workers=1, tls=files["server"], client_tls=files["client"]) as dask,
        clusters.connect(load_cluster(described(dask.address, files["client"]))) as client,
    ):
        assert client.submit(sum, [1, 2]).result() == 3
