"""What programs hand to the library: wrong types are refused in one sentence, gaps are filled in."""

import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from drqueue.client import BadRequest, JobChange, JobSpec, LayerSpec, LimitsChange, Needs
from drqueue.client.specs import prepared, typed
from drqueue.proto.model import LayerDepend
from drqueue.proto.placeholders import fill


def job(**layer: Any) -> JobSpec:
    return JobSpec(name="j", layers=(LayerSpec(**{"argv": ("true",), **layer}),))


def test_owner_and_folder_are_filled_in_where_the_job_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PWD", raising=False)
    spec = JobSpec(name="j", layers=(LayerSpec(argv=("a",)), LayerSpec(name="b", argv=("b",), cwd="/c")))
    sent = prepared(spec)
    assert sent.owner == pwd.getpwuid(os.getuid()).pw_name
    assert [layer.cwd for layer in sent.layers] == [str(tmp_path), "/c"]
    assert prepared(JobSpec(name="j", owner="ann", layers=spec.layers)).owner == "ann"


def test_a_folder_that_looks_like_a_placeholder_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "{frame:04d} {x}"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PWD", raising=False)
    (layer,) = prepared(job()).layers
    assert fill(layer.cwd, lambda name: 7) == str(folder)


def test_a_list_serves_for_a_tuple() -> None:
    spec = JobSpec(name="j", layers=[LayerSpec(argv=["ls", "-l"])])  # type: ignore[arg-type]
    assert prepared(spec).layers[0].argv == ("ls", "-l")


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (job(argv="ls -l"), "argv is a list of words; use shell= for a string"),
        (job(argv=("sleep", 5)), "layers[0].argv[1]: expected `str`, got `int`"),
        (job(chunk="2"), "layers[0].chunk: expected `int`, got `str`"),
        (job(frames=(1, 2)), "layers[0].frames: expected `str`, got `array`"),
        (job(needs={"cores": "x"}), "layers[0].needs.cores: expected `int | float`, got `str`"),
        (job(needs=Needs(cores=-1)), "layers[0].needs.cores: a number above 0 is expected"),
        (job(pad=10**9), "layers[0].pad: a number up to 99 is expected"),
        (job(retries=-1), "layers[0].retries: a number from 0 on is expected"),
        (
            job(depends=(LayerDepend(layer="a", until="never"),)),  # type: ignore[arg-type]
            "layers[0].depends[0].until: 'never' is none of done, ended",
        ),
        (job(env={"A": 1}), "layers[0].env[...]: expected `str`, got `int`"),
        (job(timeout_s=object()), "encoding objects of type object is unsupported"),
        (JobSpec(name=3, layers=()), "name: expected `str`, got `int`"),  # type: ignore[arg-type]
        (JobSpec(name="j", layers=LayerSpec(argv=("x",))), "layers: expected `array`, got `object`"),  # type: ignore[arg-type]
        ({"name": "j"}, "a JobSpec is needed, not dict"),
        (job(frames="1-"), "layer 'main': "),
    ],
)
def test_what_cannot_be_sent_is_refused_here_in_one_sentence(spec: Any, sentence: str) -> None:
    with pytest.raises(BadRequest) as refused:
        prepared(spec)
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)
    assert refused.value.code == "bad-job"


def test_changes_are_checked_and_stay_as_they_are() -> None:
    for change in (JobChange(priority=3, needs=Needs(cores=2)), LimitsChange(max_cpus=None, pools=("a",))):
        assert typed(change, "x") == change
    with pytest.raises(BadRequest, match="priority: expected `int`, got `str`"):
        typed(JobChange(priority="high"), "bad-request")  # type: ignore[arg-type]
