"""Whatever c2net, the real one, and moxing do or fail to do becomes one line; nothing is taken for something else."""

from __future__ import annotations

import errno
import io
import json
import shutil
import signal
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from cloud_jobs import CONFIG, error_of
from cloud_sdks import NEEDS_C2NET

import train
from cloud import job as cloud_job
from cloud import sdks as platform_sdks
from cloud.attached import find_data
from cloud.job import Job, JobError
from data_tools.graph import DataError
from experiment import job_options

PART = {"qm9 part.zip": "s3://user/data/qm9 part.zip"}


def enter(*arguments: str) -> Job:
    """The job that train.py runs in."""
    with job_options.enter_job(train.parse_arguments([*CONFIG, *arguments])) as job:
        return job


def zipped(path: Path, molecules: Path, name: str = "molecules.npz") -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.write(molecules, name)
    return path


# --- moxing -----------------------------------------------------------------------------------------------------------

BROKEN = {
    "raises": "raise ImportError('no libobs')",
    "misses a package": "import numpy_of_another_time",
    "fails": "1 / 0",
    "says much": "print('Using MoXing'); raise RuntimeError('no\\nregion')",
    "exits": "import sys; sys.exit('set the region first')",
    "exits well": "import sys; sys.exit(0)",
}
OTHERS = {
    "empty": "",
    "another program": "def serve(): 'of language models'",
    "no copy_parallel": "class file:\n    copy = print",
    "nothing to call": "class file:\n    copy_parallel = None",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_moxing_that_cannot_be_imported(text, cloud, capsys):
    cloud.install("moxing", {"__init__.py": text})
    assert train.main([*CONFIG, "--data_url", "s3://user/data"]) == 2
    assert "moxing, which copies from and to such addresses, cannot be used" in error_of(capsys)


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("option", ["--data_url", "--ckpt_url", "--train_url"])
def test_another_package_called_moxing(text, option, cloud, capsys):
    cloud.install("moxing", {"__init__.py": text})
    assert train.main([*CONFIG, option, "s3://user/data"]) == 2
    assert error_of(capsys) == (
        f"error: {option} s3://user/data: the package moxing that is installed is not the platform's (it has no "
        "file.copy_parallel); choose an image that has it"
    )


@pytest.mark.parametrize("call", ["exit", "raise ValueError('gone')"])
def test_moxing_that_fails_while_it_copies(call, cloud, capsys, tmp_path):
    """A source, and the address for results, where an earlier start may have left a run."""
    body = "raise SystemExit('no\\ncredentials')" if call == "exit" else call
    source = f"def copy_parallel(*_):\n    {body}\ndef exists(_):\n    {body}\n"
    cloud.install("moxing", {"__init__.py": "from moxing import file", "file.py": source})
    assert train.main([*CONFIG, "--data_url", "s3://user/data"]) == 2
    assert "--data_url s3://user/data: moxing cannot copy it (" in error_of(capsys)
    assert train.main([*CONFIG, "--resume", "True", "--train_url", "s3://results/x"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: --train_url s3://results/x: moxing cannot copy it (")
    assert "warning: the results could not be uploaded" in captured.out


def test_an_address_with_nothing_there(cloud, capsys):
    (cloud.buckets / "user" / "empty").mkdir()
    assert train.main([*CONFIG, "--data_url", "s3://user/empty/"]) == 2
    assert "--data_url s3://user/empty/: expected files, found nothing there" in error_of(capsys)


def test_an_upload_that_ends_the_program_is_a_warning_and_sigterm_is_not(capsys):
    def leave():
        sys.exit("the bucket is gone")

    Job(active=True, send=leave).upload()
    with pytest.raises(SystemExit, match="143"):
        Job(active=True, send=lambda: cloud_job._leave(signal.SIGTERM, None)).upload()


# --- the place for results --------------------------------------------------------------------------------------------


def test_results_that_cannot_be_written_are_found_out_first(cloud, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    assert train.main([*CONFIG, "--train_url", str(tmp_path / "file")]) == 2
    assert "file: the results cannot be written there (File exists); give another folder" in error_of(capsys)
    assert train.main([*CONFIG, "--train_url", str(tmp_path / "file" / "deeper")]) == 2
    assert "(Not a directory)" in error_of(capsys)

    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cloud_job.tempfile, "NamedTemporaryFile", full)
    for target in (str(tmp_path / "out"), "s3://results/out"):
        assert train.main([*CONFIG, "--train_url", target]) == 2
        line = error_of(capsys)
        assert f"--train_url {target}" in line and "cannot be written there (No space left on device)" in line
    assert not list((tmp_path / "out").iterdir())


def test_a_job_without_a_place_for_results_is_warned(cloud, molecules, capsys):
    enter("--data_url", str(molecules))
    assert "warning: the job's form names no place for results" in capsys.readouterr().out
    enter("--data_url", str(molecules), "--train_url", "s3://results/x")
    assert "warning" not in capsys.readouterr().out


# --- options that come twice ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [("a", ""), ("", "a"), ("a", "[]"), ("a", "a/"), ("a", " a ")])
def test_an_option_may_come_twice_empty_or_the_same(values, cloud):
    options = train.parse_arguments([word for value in values for word in ("--data_url", value)])
    assert options.data_url.strip().rstrip("/") == "a"


def test_an_option_that_comes_twice_with_two_values(cloud, monkeypatch, capsys):
    assert train.main([*CONFIG, "--data_url", "s3://user/a", "--data_url=s3://user/b"]) == 2
    assert "--data_url is given twice, as s3://user/a and as s3://user/b: give one" in error_of(capsys)
    monkeypatch.setenv("MA_JOB_DIR", "/home/ma-user")
    monkeypatch.setenv("data_url", "of the environment")
    assert train.parse_arguments(["--data_url", "mine"]).data_url == "mine"
    assert train.parse_arguments(["--data_url="]).data_url == "of the environment"


def test_a_list_of_data_sets_has_more_than_its_first(cloud, molecules):
    """Platforms give the first entry as --data_url; what is on this machine needs no moxing."""
    zipped(cloud.buckets / "user" / "other.zip", molecules)
    entries = [{"dataset_url": PART["qm9 part.zip"]}, {"dataset_url": "s3://user/other.zip", "dataset_name": None}]
    both = json.dumps(entries)
    job = enter("--data_url", "s3://user/data", "--multi_data_url", both)
    assert [[path.name for path in place.iterdir()] for place in job.data] == [["qm9 part.zip"], ["other.zip"]]
    assert enter("--data_url", str(molecules), "--multi_data_url", both).data == [molecules]


# --- c2net ------------------------------------------------------------------------------------------------------------

PACKAGES = {
    "empty": ({"__init__.py": ""}, "c2net cannot prepare the job: No module named 'c2net.context'"),
    "raises": ({"__init__.py": "1 / 0"}, "c2net cannot prepare the job: division by zero"),
    "exits": ({"__init__.py": "", "context.py": "import sys\ndef prepare():\n    sys.exit(0)\nupload_output = prepare"},
              "c2net cannot prepare the job: 0; choose an image"),
    "another": ({"__init__.py": "", "context.py": "prepare = print"}, "is not the platform's (it has no context.prep"),
    "no paths": ({"__init__.py": "", "context.py": "prepare = upload_output = print"}, "no attribute 'dataset_path'"),
}  # fmt: skip


@pytest.mark.parametrize("files, words", PACKAGES.values(), ids=PACKAGES)
def test_c2net_that_cannot_be_used(files, words, cloud, monkeypatch, capsys):
    cloud.install("c2net", files)
    cloud.use(monkeypatch, cloud.c2net("MOXING", {}))
    assert train.main([*CONFIG]) == 2
    assert words in error_of(capsys)


def test_an_openi_job_without_c2net(cloud, monkeypatch, capsys):
    """The data would not be found, and hours later the results be lost."""
    cloud.use(monkeypatch, cloud.c2net("MOUNT", {}))
    monkeypatch.setitem(sys.modules, "c2net", None)
    assert train.main([*CONFIG]) == 2
    assert "its SDK c2net is not installed" in error_of(capsys)
    assert enter("--train_url", "s3://results/own").output  # older jobs bring addresses
    monkeypatch.delenv("LOCAL_OUTPUT_PATH")
    assert not enter().active  # a variable of another meaning


@NEEDS_C2NET
@pytest.mark.parametrize("text", ["", *BROKEN.values()])
def test_c2net_is_silent_about_moxing(text, cloud, monkeypatch, capsys):
    """It would bring nothing and upload nothing, and print nothing."""
    cloud.install("moxing", {"__init__.py": text})
    cloud.use(monkeypatch, cloud.c2net("MOXING", {}))
    assert train.main([*CONFIG]) == 2
    assert "DATA_DOWNLOAD_METHOD MOXING: " in (line := error_of(capsys)) and "moxing" in line


@NEEDS_C2NET
def test_c2net_that_raises(cloud, monkeypatch, capsys):
    cloud.use(monkeypatch, cloud.c2net("MOXING", {}))
    monkeypatch.delenv("LOCAL_OUTPUT_PATH")
    assert train.main([*CONFIG]) == 2
    assert "c2net cannot prepare the job: ❌ Failed to obtain environment variables. Please set" in error_of(capsys)
    monkeypatch.setenv("DATA_DOWNLOAD_METHOD", "PIGEON")
    assert train.main([*CONFIG]) == 2
    assert "Unknown data download method" in error_of(capsys)
    shutil.rmtree(cloud.disk / "job")
    cloud.use(monkeypatch, cloud.c2net("MOUNT", {}))
    (cloud.disk / "job" / "output").touch()
    assert train.main([*CONFIG]) == 2
    assert "File exists" in error_of(capsys)


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@NEEDS_C2NET
@pytest.mark.parametrize("method", ["MOXING", "MOUNT"])
def test_what_c2net_does_not_bring_is_found_out(method, cloud, molecules, monkeypatch, capsys):
    """It prints an error, or nothing, and goes on; the run would go on too, with other data."""
    shutil.copy(molecules, cloud.buckets / "user" / "plain.npz")
    for name in ("gone.zip", "bad.zip"):
        zipped(cloud.buckets / "user" / name, molecules)
    two = {**PART, "gone.zip": "s3://user/gone.zip"}
    variables = cloud.c2net(method, two)
    (cloud.buckets / "user" / "gone.zip").unlink()
    (cloud.disk / "job" / "dataset" / "gone.zip").unlink(missing_ok=True)
    cloud.use(monkeypatch, variables)
    with pytest.raises(JobError, match=r"has not brought the data set gone.zip; look at"):
        enter()
    if method == "MOXING":  # it brings only archives where it unpacks
        shutil.rmtree(cloud.disk / "job")
        cloud.use(monkeypatch, cloud.c2net(method, {**PART, "plain.npz": "s3://user/plain.npz"}))
        with pytest.raises(JobError, match=r"has not brought the data set plain.npz; .*takes .zip and .tar.gz"):
            enter()
    shutil.rmtree(cloud.disk / "job")
    damage(cloud.buckets / "user" / "bad.zip")
    cloud.use(monkeypatch, cloud.c2net(method, {**PART, "bad.zip": "s3://user/bad.zip"}))
    for _ in range(2):  # its note, that all is ready, would hide the failure from the second start
        with pytest.raises(JobError, match=r"c2net cannot unpack .*dataset/bad.zip; look at its lines"):
            enter()
        if method == "MOXING":
            assert "Extraction failed" in capsys.readouterr().out
    shutil.rmtree(cloud.disk / "job")
    variables = cloud.c2net(method, PART, {"model.zip": "s3://user/bad.zip"})
    (cloud.disk / "job" / "pretrainmodel" / "model.zip").unlink(missing_ok=True)
    (cloud.buckets / "user" / "bad.zip").unlink()
    cloud.use(monkeypatch, variables)
    with pytest.raises(JobError, match=r"has not brought the model model.zip"):
        enter()


@NEEDS_C2NET
def test_mounted_data_may_have_names_of_their_own(cloud, molecules, monkeypatch, capsys):
    variables = cloud.c2net("MOUNT", PART)
    data = cloud.disk / "job" / "dataset"
    (data / "qm9 part.zip").unlink()
    (data / "qm9 part.zip").mkdir()  # unpacked by the platform into a folder of the archive's name
    shutil.copy(molecules, data / "qm9 part.zip")
    cloud.use(monkeypatch, variables)
    assert find_data(enter().data, cloud.disk) == data / "qm9 part.zip" / molecules.name
    assert "warning" not in capsys.readouterr().out
    (data / "qm9 part.zip").rename(data / "volume")
    shutil.rmtree(cloud.disk / "geospore")  # another start
    assert find_data(enter().data, cloud.disk) == data / "volume" / molecules.name
    assert "warning: the job's form names the data set qm9 part.zip; in " in capsys.readouterr().out


@NEEDS_C2NET
def test_names_in_gbk_that_c2net_leaves_as_bytes(cloud, molecules, monkeypatch):
    """A configuration and a log hold text only."""
    with tarfile.open(cloud.buckets / "user" / "gbk.tar.gz", "w:gz", encoding="gbk", format=tarfile.GNU_FORMAT) as file:
        file.add(molecules, "数据/分子.npz")
    cloud.use(monkeypatch, cloud.c2net("MOUNT", {"gbk.tar.gz": "s3://user/gbk.tar.gz"}))
    options = train.parse_arguments([*CONFIG])
    with job_options.enter_job(options) as job:
        job_options.use_for_training(options, job)
    found = Path(train.configure(options)[0].data.file)
    assert found.name == "分子.npz" and found.read_bytes() == molecules.read_bytes()
    with pytest.raises(DataError, match="called x"), job_options.enter_job(options) as job:
        options.set = ["data.file=x"]
        job_options.use_for_training(options, job)
    (log,) = job.output.glob("job-*.log")  # the first job's train.log stays
    assert r"\udcb7\udcd6\udcd7\udcd3.npz" in log.read_text()


@NEEDS_C2NET
def test_uploads_that_c2net_only_prints_about(cloud, monkeypatch, capsys):
    variables = cloud.c2net("MOXING", {})
    cloud.use(monkeypatch, variables)
    job = enter()
    monkeypatch.setenv("FAKE_UPLOADS", "fail")
    job.upload()
    line = capsys.readouterr().out.splitlines()[-1]
    assert "warning: the results could not be uploaded: ❌ moxing upload" in line and "the bucket is gone" in line
    monkeypatch.delenv("FAKE_UPLOADS")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))  # it prints ✅ and ❌
    platform_sdks.upload()
    for value in (None, ""):
        cloud.use(monkeypatch, variables)
        monkeypatch.setenv("OUTPUT_URL", value) if value is not None else monkeypatch.delenv("OUTPUT_URL")
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        monkeypatch.chdir(cloud.disk)
        assert enter().send is None
        assert "warning: OUTPUT_URL is not set, so c2net uploads no results" in sys.stdout.getvalue()
        assert not (cloud.disk / "None").exists()
