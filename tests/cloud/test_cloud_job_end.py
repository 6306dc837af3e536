"""How OpenI and ModelArts jobs end and go on, and their several processes on one server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import pytest
import yaml
from cloud_jobs import CONFIG, RESULTS, error_of, names, start, words
from cloud_sdks import NEEDS_C2NET
from tiny_runs import REPOSITORY, small_run

import train
from cloud.job import Job
from scripts.benchmarks.soak_resume import differences
from training import checkpoint as checkpoints

pytestmark = pytest.mark.usefixtures("same_mode")


@pytest.fixture(scope="module")
def run(molecules, tmp_path_factory):
    """A finished run of an earlier job."""
    return small_run(molecules, tmp_path_factory.mktemp("runs") / "earlier")


# --- the end of a job, and its continuation ---------------------------------------------------------------------------


SETTINGS = {"training__epochs": 60, "schedule__name": "cosine", "optimizer__ema_decay": 0.9, "run__log_every": 1}


def test_a_stopped_job_is_continued_by_the_next(cloud, molecules, tmp_path):
    """SIGTERM: the bucket has log and checkpoint; the same form with the results attached goes on, bit for bit."""
    form = ["--data_url=s3://user/data/", "--resume=True", *words(*CONFIG, **SETTINGS)]
    process = start(cloud, *form, "--train_url=s3://results/first")
    while process.poll() is None and not (cloud.buckets / "results" / "first" / "last.safetensors").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in err
    assert "nothing to resume" in out
    first = cloud.buckets / "results" / "first"
    log = (first / "train.log").read_text()
    assert "the job ends: stopped by SIGTERM after step" in log and "metrics.json" not in names(first)
    step = checkpoints.load(first / "last.safetensors").information["progress"]["step"]
    assert f"after step {step};" in log
    shutil.rmtree(cloud.disk / "geospore")  # another server

    process = start(cloud, *form, "--train_url=s3://results/second", "--ckpt_url=s3://results/first")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    second = cloud.buckets / "results" / "second"
    assert f"step {step}" in out and "resumed after epoch" in (second / "train.log").read_text()
    whole = small_run(molecules, tmp_path / "whole", **SETTINGS)
    assert not differences(whole, second)


def test_a_job_that_the_platform_starts_again_goes_on(cloud, run, tmp_path, capsys):
    """The output folder holds what the earlier start left: there, or at the address for results."""
    for target in (str(tmp_path / "local"), "s3://results/again"):
        shutil.copytree(run, tmp_path / "local" if "://" not in target else cloud.buckets / "results" / "again")
        arguments = words(*CONFIG, "--resume", "true", "--data_url", "s3://user/data", "--train_url", target)
        assert train.main([*arguments, "--epochs", "2"]) == 0
        assert "resumed after epoch 1" in capsys.readouterr().out


def test_a_run_in_an_archive_is_resumed_without_what_it_started_from(cloud, run, molecules, tmp_path, capsys):
    shutil.copy(run / "best.safetensors", tmp_path / "start.safetensors")
    earlier = small_run(molecules, tmp_path / "earlier", training__pretrained=tmp_path / "start.safetensors")
    (tmp_path / "start.safetensors").unlink()
    with zipfile.ZipFile(cloud.buckets / "user" / "model.zip", "w") as file:
        for path in earlier.iterdir():
            file.write(path, f"results/{path.name}")
    given = ["--resume", "True", "--ckpt_url", "s3://user/model.zip", "--train_url", "s3://results/on", "--epochs", "2"]
    assert train.main(given) == 0
    assert "resumed after epoch 1" in capsys.readouterr().out
    config = yaml.safe_load((cloud.buckets / "results" / "on" / "config.yaml").read_text())
    assert config["training"]["epochs"] == 2


@NEEDS_C2NET
def test_an_openi_job_continues_the_run_chosen_as_its_model(cloud, run, monkeypatch, capsys):
    """One form for the first job and the next; the platform attaches the results of the first as an archive."""
    with zipfile.ZipFile(cloud.buckets / "user" / "output.zip", "w") as file:
        for path in run.iterdir():
            file.write(path, f"output/{path.name}")
    data, model = {"qm9 part.zip": "s3://user/data/qm9 part.zip"}, {"output.zip": "s3://user/output.zip"}
    cloud.use(monkeypatch, cloud.c2net("MOUNT", data, model))
    assert train.main(words(*CONFIG, "--resume", "True", training__epochs=2)) == 0
    assert "resumed after epoch 1" in capsys.readouterr().out
    assert names(cloud.disk / "job" / "output") >= RESULTS


def test_resume_without_a_run(cloud, tmp_path, capsys):
    given = ["--resume", "True", "--train_url", str(tmp_path / "out")]
    assert train.main(given) == 2
    captured = capsys.readouterr()
    assert "nothing to resume" in captured.out and "either --config FILE" in captured.err
    assert train.main(["--resume", "True", "--data_url", "s3://user/data"]) == 2
    assert "give --train_url" in error_of(capsys)
    assert train.main(["--resume", str(tmp_path), "--train_url", str(tmp_path / "out")]) == 2
    assert "expected a run folder" in error_of(capsys)
    assert train.main(["--resume", "False", *CONFIG, "--train_url", str(tmp_path / "out"), "--epochs", "x"]) == 2
    assert "expected int" in error_of(capsys)


def test_an_error_reaches_the_bucket(cloud, capsys):
    """A loss that is not finite: exit code 3; log and last checkpoint arrive.  A wrong value: the log arrives."""
    given = ["--data_url", "s3://user/data", "--train_url", "s3://results/bad"]
    assert train.main(words(*CONFIG, *given, optimizer__lr=1e30, training__epochs=9)) == 3
    assert "the job ends: " in (cloud.buckets / "results" / "bad" / "train.log").read_text()
    given[-1] = "s3://results/worse"
    assert train.main(words(*CONFIG, *given, training__epochs="many")) == 2
    assert "expected int, got 'many'" in (cloud.buckets / "results" / "worse" / "train.log").read_text()
    capsys.readouterr()


def test_a_signal_outside_the_training_loop_uploads_too(tmp_path):
    sent = []

    def send():
        os.kill(os.getpid(), signal.SIGTERM)  # the platform asks again
        sent.append(1)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop, Job(active=True, send=send):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert stop.value.code == 128 + signal.SIGTERM and sent == [1]
    assert signal.getsignal(signal.SIGTERM) is before


def test_only_the_main_process_uploads(tmp_path):
    sent = []
    for is_main in (False, True):
        with Job(active=True, is_main=is_main, send=lambda: sent.append(1)) as job:
            job.upload()
    assert len(sent) == 2


# --- several processes on one server ----------------------------------------------------------------------------------

CHILD = """
import argparse, sys
from cloud import job as cloud_job
options = argparse.Namespace(data_url="s3://user/big", train_url="s3://results/x")
job = cloud_job.open_job(options, is_main=False)
(folder,) = job.data
print(sum(len(file.read_bytes()) for file in folder.rglob("*") if file.is_file()))
"""


def ranks(cloud, count, **variables):
    """What so many processes of one job print."""
    environment = {**os.environ, **cloud.variables(RANK_SIZE=str(count), JOB_ID="job", FAKE_SECONDS="0.1", **variables)}
    environment["PYTHONPATH"] += os.pathsep + str(REPOSITORY)
    command = [sys.executable, "-c", CHILD]
    started = [subprocess.Popen(command, cwd=cloud.disk, env=environment, stdout=subprocess.PIPE) for _ in range(count)]
    return [(process.communicate(timeout=300)[0].decode().strip(), process.returncode) for process in started]


@pytest.fixture
def big(cloud):
    """A folder of several files in a bucket; its size in bytes."""
    (cloud.buckets / "user" / "big" / "deep").mkdir(parents=True)
    for number in range(5):
        (cloud.buckets / "user" / "big" / "deep" / f"{number}").write_bytes(os.urandom(1000))
    return "5000"


def test_one_process_of_a_server_copies(cloud, big):
    assert ranks(cloud, 4) == [(big, 0)] * 4
    assert len(cloud.journal()) == 1


def test_a_process_that_dies_while_it_copies_leaves_nothing_behind(cloud, big):
    results = ranks(cloud, 4, FAKE_DIES="yes")
    assert sorted(results) == [("", -signal.SIGKILL), *[(big, 0)] * 3]
    assert len(cloud.journal()) == 2


def test_a_lone_process_copies_again(cloud, big):
    """Its bucket may have changed since."""
    assert ranks(cloud, 1) == [(big, 0)]
    (cloud.buckets / "user" / "big" / "deep" / "4").write_bytes(b"")
    assert ranks(cloud, 1) == [("4000", 0)]


@NEEDS_C2NET
@pytest.mark.usefixtures("every_core")
def test_an_openi_job_with_two_devices(cloud):
    """One process fetches and sends; the platform's own options pass through the launcher."""
    variables = cloud.c2net("MOXING", {"qm9 part.zip": "s3://user/data/qm9 part.zip"})
    form = ["--device_num", "2", "--device_target", "CPU", "--grampus_code_file_name=master.zip"]
    process = start(cloud, *words(*CONFIG, *form, training__epochs=2), **variables)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    results = cloud.buckets / "results" / "job"
    assert names(results) == {*RESULTS, "last-1.safetensors"}
    assert json.loads((results / "metrics.json").read_text())["processes"] == 2
    downloads = [line for line in cloud.journal() if line.endswith("qm9 part.zip")]
    uploads = [line for line in cloud.journal() if line.endswith("-> s3://results/job")]
    assert len(downloads) == 1 and len(uploads) == 2 + 1  # after each epoch and at the end
    assert "ignored: --grampus_code_file_name=master.zip" in out and "finished in" in out


@pytest.mark.usefixtures("every_core")
def test_a_job_with_two_devices_is_stopped_and_goes_on_with_one(cloud):
    """SIGTERM reaches the launcher, which saves and ends all; the log and a checkpoint reach the bucket."""
    form = ["--data_url=s3://user/data/", "--train_url=s3://results/first", "--device_num=2"]
    process = start(cloud, *words(*CONFIG, *form, **SETTINGS))
    results = cloud.buckets / "results" / "first"
    while process.poll() is None and not (results / "last.safetensors").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM, out + err
    assert "--resume continues" in out + err
    assert "the job ends: stopped by SIGTERM after step" in (results / "train.log").read_text()
    progress = checkpoints.load(results / "last.safetensors").information["progress"]
    epoch = progress["epoch"]
    assert progress["step"] == 2 * epoch + progress["position"] > 0
    given = ["--data_url=s3://user/data/", "--ckpt_url=s3://results/first", "--train_url=s3://results/second"]
    assert train.main(["--resume=True", *given, "--epochs", str(epoch + 1)]) == 0
    assert json.loads((cloud.buckets / "results" / "second" / "metrics.json").read_text())["processes"] == 1


# --- what an earlier job left -----------------------------------------------------------------------------------------


def test_a_job_without_resume_keeps_what_is_there(cloud, run, tmp_path, capsys):
    """In a local output folder and at an address; the log of the refused job has a name of its own."""
    places = {str(tmp_path / "out"): tmp_path / "out", "s3://results/kept": cloud.buckets / "results" / "kept"}
    for target, place in places.items():
        shutil.copytree(run, place)
        before = {path.name: path.read_bytes() for path in place.iterdir()}
        given = words(*CONFIG, "--data_url", "s3://user/data", "--train_url", target)
        assert train.main(given) == 2
        line = error_of(capsys)
        assert "--resume True" in line and "--overwrite True" in line and target in line
        (log,) = names(place) - set(before)
        assert log.startswith("job-") and "a run is there already" in (place / log).read_text()
        (place / log).unlink()
        assert train.main([*given, "--resume", "True", "--set", "run.seed=3"]) == 2
        assert "run.seed 3 instead of 0" in error_of(capsys)
        assert {name: (place / name).read_bytes() for name in before} == before
        shutil.rmtree(cloud.disk / "geospore", ignore_errors=True)  # another server


def test_a_job_may_replace_what_is_there(cloud, run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "out")
    (tmp_path / "out" / "last-1.safetensors").write_bytes(b"old")
    given = words(*CONFIG, "--data_url", "s3://user/data", "--train_url", str(tmp_path / "out"), run__seed=3)
    assert train.main([*given, "--overwrite", "True"]) == 0
    assert names(tmp_path / "out") == RESULTS
    assert (tmp_path / "out" / "train.log").read_text().count("finished in") == 1
    assert train.main([*given, "--output", "beside it"]) == 0
    assert names(tmp_path / "out" / "beside it") == RESULTS
    capsys.readouterr()
