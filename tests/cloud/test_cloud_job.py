"""OpenI jobs, with the real c2net, and ModelArts jobs; moxing is a stand-in.  What comes in is found and used."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from cloud_jobs import CONFIG, FOREIGN, RESULTS, error_of, names, words
from cloud_sdks import NEEDS_C2NET
from tiny_runs import MINI, small_run

import eval as evaluation
import train
from cloud import job as cloud_job
from configs.loading import load_config
from data_tools.graph import DataError
from experiment import job_options

pytestmark = pytest.mark.usefixtures("same_mode")
VISIBLE = "an NPU is visible (ASCEND_VISIBLE_DEVICES=0): --device_target Ascend uses it"


@pytest.fixture(scope="module")
def run(molecules, tmp_path_factory):
    """A finished run of an earlier job."""
    return small_run(molecules, tmp_path_factory.mktemp("runs") / "earlier")


# --- what a job is ----------------------------------------------------------------------------------------------------


def test_an_installed_sdk_is_no_job(cloud, capsys):
    """An ordinary notebook of the platforms: like anywhere else."""
    assert train.main([*CONFIG, "--grampus_code_file_name", "x"]) == 2
    assert "unknown option --grampus_code_file_name" in error_of(capsys)
    assert train.main([*CONFIG, "--epoch", "x"]) == 2
    assert "did you mean --epochs?" in error_of(capsys)
    assert not cloud.journal()


@pytest.mark.parametrize("nothing", ["", "[]", "[{}]", "{}", "None", " "])
def test_options_that_a_form_leaves_empty_are_no_job(nothing, cloud, capsys):
    given = [word for option in cloud_job.HELP for word in (f"--{option}", nothing)]
    assert train.main([*CONFIG, *given, "--unheard", "1"]) == 2
    assert "unknown option --unheard" in error_of(capsys)


def test_options_come_in_all_forms(cloud):
    options = train.parse_arguments(["--data_url", "a b", "--train_url=c", "--ckpt_url", *FOREIGN])
    assert (options.data_url, options.train_url, options.ckpt_url, options.model_url) == ("a b", "c", "", "")
    assert options.unknown == [
        "--grampus_code_file_name=master.zip", "--enable_modelarts", "True", "--is_distributed",
        "--epoch (did you mean --epochs?)", "3",
    ]  # fmt: skip


def test_a_modelarts_job_may_pass_variables(cloud, monkeypatch):
    monkeypatch.setenv("data_url", "somewhere")
    assert not train.parse_arguments([]).data_url
    monkeypatch.setenv("MA_JOB_DIR", "/home/ma-user")
    assert train.parse_arguments([]).data_url == "somewhere"


@pytest.mark.parametrize("text, value", [("True", True), ("FALSE", False), ("tRUE", True), ("'False'", False)])
def test_boolean_strings(text, value):
    assert load_config(MINI, [("run.plots", text)]).run.plots is value


# --- training ---------------------------------------------------------------------------------------------------------


def test_a_modelarts_job_with_local_folders(cloud, molecules, tmp_path, monkeypatch, capsys):
    """Inputs and outputs are folders that the platform copies; the program starts in another folder."""
    place, results = tmp_path / "inputs" / "data_url_0" / "deep er", tmp_path / "outputs" / "train_url_0"
    place.mkdir(parents=True)
    shutil.copy(molecules, place)
    monkeypatch.chdir(tmp_path)
    given = ["--data_url", str(place.parent), f"--train_url={results}", "--ckpt_url", *FOREIGN]
    assert train.main(words(*CONFIG, *given, run__plots="False")) == 0
    assert names(results) == RESULTS
    out = capsys.readouterr().out
    assert "ignored: --grampus_code_file_name=master.zip --enable_modelarts True --is_distributed --epoch (did" in out
    assert not cloud.journal() and names(tmp_path) == {"packages", "buckets", "local disk", "inputs", "outputs"}


def test_a_moxing_job(cloud, capsys):
    given = ["--data_url", "s3://user/data/", "--train_url", "obs://results/job 1/"]
    assert train.main(words(*CONFIG, *given, training__epochs=2)) == 0
    results = cloud.buckets / "results" / "job 1"
    assert names(results) == {*RESULTS, "last-1.safetensors"}
    uploads = [line for line in cloud.journal() if line.endswith("-> obs://results/job 1/")]
    assert len(uploads) == 2 + 1  # after each epoch and at the end
    assert load_config(results / "config.yaml").data.file.endswith("qm9 part/folder/数据/molecules.npz")
    assert "results go to" in (results / "train.log").read_text() + capsys.readouterr().out


def test_several_data_sets_and_a_checkpoint_as_json(cloud, molecules, run):
    bucket = cloud.buckets / "user"
    shutil.copytree(run, bucket / "model" / "run")
    (bucket / "other").mkdir()
    shutil.copy(molecules, bucket / "other" / "other.npz")
    data = [
        {"dataset_url": "s3://user/data/qm9 part.zip", "dataset_name": "qm9 part.zip"},
        {"dataset_url": "s3://user/other", "dataset_name": "other.zip"},  # unpacked by the platform
        {},
    ]
    weights = [{"model_url": "s3://user/model", "model_name": "../run.zip"}]
    given = [
        "--multi_data_url", json.dumps(data), "--data_url", "", "--pretrain_url", json.dumps(weights),
        "--train_url", "s3://results/json", "--set", "data.file=qm9 part.zip",
    ]  # fmt: skip
    assert train.main(words(*CONFIG, *given)) == 0
    config = load_config(cloud.buckets / "results" / "json" / "config.yaml")
    assert config.data.file.endswith("qm9 part/folder/数据/molecules.npz")
    assert config.training.pretrained.endswith("/run.zip/run")


@NEEDS_C2NET
@pytest.mark.parametrize("method", ["MOXING", "MOUNT"])
def test_an_openi_job(method, cloud, monkeypatch, run, capsys):
    with zipfile.ZipFile(cloud.buckets / "user" / "run.zip", "w") as file:
        for path in run.iterdir():
            file.write(path, f"run/{path.name}")
    variables = cloud.c2net(method, {"qm9 part.zip": "s3://user/data/qm9 part.zip"}, {"run.zip": "s3://user/run.zip"})
    cloud.use(monkeypatch, {**variables, "ASCEND_VISIBLE_DEVICES": "0"})
    # the platform passes addresses as well, here to what no longer is there
    given = ["--data_url", "s3://gone", "--model_url", "s3://gone", "--device_target", "CPU"]
    assert train.main(words(*CONFIG, *given, training__epochs=2)) == 0
    output = cloud.disk / "job" / "output"
    assert names(output) == {*RESULTS, "last-1.safetensors"}
    assert (output / "train.log").read_text().count(f"  warning: {VISIBLE}\n") == 1
    config = load_config(output / "config.yaml")
    assert config.data.file == str(cloud.disk / "job" / "dataset" / "qm9 part" / "folder" / "数据" / "molecules.npz")
    # c2net 0.2.0 does not unpack a mounted model, whose archive stays there
    unpacked = cloud.disk / ("job/pretrainmodel" if method == "MOXING" else "geospore")
    assert Path(config.training.pretrained).is_relative_to(unpacked) and config.training.pretrained.endswith("/run/run")
    assert capsys.readouterr().out.count("Completed Upload Output") == (3 if method == "MOXING" else 0)
    if method == "MOXING":
        assert names(cloud.buckets / "results" / "job") == names(output)


@NEEDS_C2NET
def test_an_openi_job_without_attachments_keeps_its_own_data(cloud, monkeypatch, molecules):
    cloud.use(monkeypatch, cloud.c2net("MOXING", {}))
    assert train.main(words(*CONFIG, "--epochs", "1", data__file=molecules)) == 0
    config = load_config(cloud.disk / "job" / "output" / "config.yaml")
    assert (config.data.file, config.training.pretrained) == (str(molecules), "")


def test_an_upload_that_fails_is_a_warning(cloud, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_UPLOADS", "fail")
    given = ["--data_url", "s3://user/data", "--train_url", "s3://results/never"]
    assert train.main(words(*CONFIG, *given)) == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert len(warnings) == 2 and all(line.endswith("could not be uploaded: the bucket is gone") for line in warnings)


def test_the_shipped_sample_can_be_chosen_though_data_are_attached(cloud):
    options = train.parse_arguments([*CONFIG, "--data_url", "s3://user/data", "--set", "data.file=sample"])
    with job_options.enter_job(options) as job:
        job_options.use_for_training(options, job)
    assert train.configure(options)[0].data.file == "sample"


@pytest.mark.parametrize("output, expected", [([], ""), (["--output", "mine"], "mine")])
def test_the_output_folder(output, expected, cloud, tmp_path):
    options = train.parse_arguments([*CONFIG, "--train_url", str(tmp_path / "results"), *output])
    with job_options.enter_job(options) as job:
        job_options.use_for_training(options, job)
    assert train.configure(options)[1].path == tmp_path / "results" / expected


def test_a_model_url_may_be_a_place_for_results(cloud, capsys):
    (cloud.buckets / "empty").mkdir()
    for url in ("s3://empty", "s3://nowhere/model"):
        options = train.parse_arguments([*CONFIG, "--model_url", url])
        with job_options.enter_job(options) as job:
            job_options.use_for_training(options, job)
        assert not train.configure(options)[0].training.pretrained
        assert "left aside: " in capsys.readouterr().out


# --- mistakes ---------------------------------------------------------------------------------------------------------

MISTAKES = {
    "no such folder": (["--data_url", "{tmp}/gone"], "--data_url {tmp}/gone: expected a file or folder"),
    "an empty folder": (["--data_url", "{tmp}/buckets/results"], "expected one data set", "found nothing"),
    "no such address": (["--data_url", "s3://gone/data"], "moxing cannot copy it ([Errno 404] object not found:"),
    "no JSON": (["--multi_data_url", "[{{'dataset_url': 1}}]"], "expected a path, an address or a JSON list"),
    "another JSON": (["--multi_data_url", '[{{"url": "s3://user"}}]'], "JSON list", "dataset_url"),
    "brackets": (["--multi_data_url", "[" * 100_000], "JSON list of them (maximum recursion depth"),
    "a list of text": (["--pretrain_url", '["s3://user"]'], "--pretrain_url", "JSON list"),
    "no checkpoint": (["--ckpt_url", "s3://user/data"], "run folder or .safetensors checkpoint", "qm9 part.zip"),
    "no such name": (["--data_url", "s3://user/data", "--set", "data.file=x.npz"], "called x.npz, found others"),
}


@pytest.mark.parametrize("given, parts", [(row[0], row[1:]) for row in MISTAKES.values()], ids=MISTAKES)
def test_mistakes_are_one_line_and_exit_code_2(given, parts, cloud, tmp_path, capsys):
    given = [word.format(tmp=tmp_path) for word in given]
    assert train.main([*CONFIG, *given, "--train_url", "s3://results/mistake"]) == 2
    line = error_of(capsys)
    assert all(part.format(tmp=tmp_path) in line for part in parts), line


# --- evaluation -------------------------------------------------------------------------------------------------------


def test_evaluation_in_a_job(cloud, run, tmp_path, capsys):
    shutil.copytree(run, cloud.buckets / "user" / "model")
    given = ["--data_url", "s3://user/data", "--ckpt_url", "s3://user/model", "--result_url", "s3://results/eval"]
    assert evaluation.main([*given, "--split", "test", "--num_gpus=1", "--access_key=hunter2"]) == 0
    results = cloud.buckets / "results" / "eval"
    metrics = json.loads((results / "evaluation" / "metrics.json").read_text())
    expected = json.loads((run / "metrics.json").read_text())["test"]["best model"]["mae"]
    assert metrics["metrics"]["model"]["mae"] == pytest.approx(expected, rel=1e-6)
    out = capsys.readouterr().out
    assert "ignored: --num_gpus=1 --access_key=MASKED" in out and "hunter2" not in out
    assert "hunter2" not in (results / "evaluation" / "metrics.json").read_text()
    (cloud.buckets / "user" / "own").mkdir()
    (cloud.buckets / "user" / "own" / "own.xyz").write_text("2\nhydrogen\nH 0 0 0\nH 0 0 0.74\n")
    given[1] = "s3://user/own"
    assert evaluation.main([*given, "--input", "own.xyz"]) == 0
    assert (results / "predictions.csv").read_text().count("\n") == 2


@NEEDS_C2NET
def test_evaluation_of_an_openi_job(cloud, monkeypatch, run, capsys):
    shutil.copy(run / "best.safetensors", cloud.buckets / "user" / "best.safetensors")
    variables = cloud.c2net(
        "MOXING", {"qm9 part.zip": "s3://user/data/qm9 part.zip"}, {"best.safetensors": "s3://user/best.safetensors"}
    )
    # where it unpacks, c2net leaves out what is no archive
    cloud.use(monkeypatch, {**variables, "PRETRAIN_MODEL_NEED_UNZIP": "false", "ASCEND_VISIBLE_DEVICES": "0"})
    assert evaluation.main(["--batch_size", "32"]) == 0
    assert names(cloud.buckets / "results" / "job" / "evaluation") == {"metrics.json", "predictions.csv"}
    assert f"  warning: {VISIBLE}\n" in capsys.readouterr().out


def test_evaluation_without_a_checkpoint(cloud, capsys):
    assert evaluation.main(["--data_url", "s3://user/data"]) == 2
    assert "expected --ckpt RUN" in error_of(capsys)


def test_data_errors_are_those_of_the_room(cloud):
    options = evaluation.parse_arguments(["--ckpt_url", "s3://user/data"])
    with pytest.raises(DataError, match="attach the right one"), job_options.enter_job(options) as job:
        job_options.use_for_evaluation(options, job)
