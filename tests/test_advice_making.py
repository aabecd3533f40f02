"""What the commands that make something with a trained generator advise works, done literally; and docs/painting.md."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.advice import do, refusal
from tests.conftest import HOME
from tests.evaluated_runs import blots
from tests.made_generators import made_generator, make
from trainer.runs.trained_generator import TrainedGenerator

TRAINER = "python -m trainer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder as docs/painting.md has it: runs/a with styles and classes, runs/z without, shards, pictures."""
    folder = tmp_path_factory.mktemp("painting")
    data = blots(folder)
    made_generator(folder / "runs" / "a", data, "stylegan2", g_conditional=True)
    made_generator(folder / "runs" / "z", data, "dcgan")
    data.rename(folder / "my-shards")
    (folder / "data").symlink_to("my-shards")  # the runs know it by the name before
    shutil.copy(folder / "source" / "red" / "3.png", folder / "MY_PICTURE.png")
    (folder / "MY_PICTURES").mkdir()
    shutil.copy(folder / "source" / "red" / "3.png", folder / "MY_PICTURES" / "red.png")
    return folder


@pytest.fixture
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a cache of its own."""
    monkeypatch.chdir(folder)
    return folder


CODE = "found-before/code.safetensors"
ADVICE = {  # a command that is refused, and the options with which it works
    "name fewer --seeds or directions": (
        "edit runs/z --out a.png --seeds 0-9999 --strengths=0,1",
        "edit runs/z --out a.png --seeds 0-3 --strengths=0,1",
    ),
    "go together: name both": (
        "edit runs/a --out a.png --from-class red",
        "edit runs/a --out a.png --from-class red --to-class blue",
    ),
    "leave --class, --label, --truncation out": (
        f"edit runs/a --out a.png --code {CODE} --truncation 0.5",
        f"edit runs/a --out a.png --code {CODE}",
    ),
    "name two classes": (
        "edit runs/a --out a.png --from-class red --to-class 2",
        "edit runs/a --out a.png --from-class red --to-class 1",
    ),
    "leave --direction, --directions, --layers out": (
        "edit runs/a --out a.png --from-class red --to-class blue --layers fine",
        "edit runs/a --out a.png --from-class red --to-class blue",
    ),
    "leave --class out": (
        "edit runs/a --out a.png --from-class red --to-class blue --class red",
        "edit runs/a --out a.png --from-class red --to-class blue",
    ),
    "use --seeds in place of --code": (
        f"edit runs/a --out a.png --from-class red --to-class blue --code {CODE}",
        "edit runs/a --out a.png --from-class red --to-class blue --seeds 3",
    ),
    "so leave them out": (
        "nearest MY_PICTURES --out near-advice --force --data my-shards --seeds 1",
        "nearest MY_PICTURES --out near-advice --force --data my-shards",
    ),
    "--data SHARDS or a folder of pictures": (
        "nearest MY_PICTURES --out near-advice --force",
        "nearest MY_PICTURES --out near-advice --force --data source",
    ),
    "too many for a sheet: name at most 1,000": (
        "nearest runs/z --out near-advice --force --seeds 0-1000",
        "nearest runs/z --out near-advice --force --seeds 0-9",
    ),
    "a projected one is found: leave it out": (
        "project MY_PICTURE.png runs/z --out found-advice --force --steps 2 --starts 2 --truncation 1",
        "project MY_PICTURE.png runs/z --out found-advice --force --steps 2 --starts 2",
    ),
    "use it without other choices of pictures": (
        f"sample runs/a --out a.png --code {CODE} --seeds 3",
        f"sample runs/a --out a.png --code {CODE}",
    ),
    "name fewer than 10,000": (
        "stylemix runs/a --out a.png --rows 0-100 --cols 0-100",
        "stylemix runs/a --out a.png --rows 0-1 --cols 0-1",
    ),
    "use --by realism or logit": (
        "seeds runs/z --out best.txt --among 0-9 --best 2 --by mean-style",
        "seeds runs/z --out best.txt --among 0-9 --best 2 --by logit",
    ),
    "ask for 1 to all of them": ("edit runs/a --out a.png --direction 16", "edit runs/a --out a.png --direction 15"),
    "name them by their numbers": (
        "edit runs/z --out a.png --layers coarse",
        "edit runs/z --out a.png --layers 0",
    ),
    "--space w or w+": (
        "project MY_PICTURE.png runs/a --out found-advice --force --steps 2 --starts 2 --space z",
        "project MY_PICTURE.png runs/a --out found-advice --force --steps 2 --starts 2 --space w+",
    ),
    "--space z": (
        "project MY_PICTURE.png runs/z --out found-advice --force --steps 2 --starts 2 --space w",
        "project MY_PICTURE.png runs/z --out found-advice --force --steps 2 --starts 2 --space z",
    ),
}


@pytest.mark.parametrize("advised", ADVICE)
def test_what_is_advised_works(advised: str, there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not Path(CODE).exists():
        make("project", "MY_PICTURE.png", "runs/a", "--out", "found-before", "--steps", "2", "--starts", "2")
    refused, works = ADVICE[advised]
    assert advised in refusal(capsys, f"{TRAINER} {refused}")
    assert do(f"{TRAINER} {works}") == 0


def test_a_code_file_that_is_written_again(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    make("project", "MY_PICTURE.png", "runs/z", "--out", "again", "--steps", "2", "--starts", "2")
    code = Path("again/code.safetensors")
    tensors = load_file(code)
    save_file(tensors | {"label": tensors["label"].repeat(2, 1)}, code)
    sample = f"{TRAINER} sample runs/z --out a.png --code {code}"
    assert "different numbers of codes: write it again" in refusal(capsys, sample)
    make("project", "MY_PICTURE.png", "runs/z", "--out", "again", "--steps", "2", "--starts", "2", "--force")
    assert do(sample) == 0


def test_seeds_of_a_run_whose_data_is_not_known(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = f"{TRAINER} seeds runs/z --out best.txt --among 0-9 --best 2"
    read = TrainedGenerator.__init__

    def without_data(self: TrainedGenerator, *arguments: object) -> None:
        read(self, *arguments)  # type: ignore[arg-type]
        object.__setattr__(self.config, "data", None)

    monkeypatch.setattr(TrainedGenerator, "__init__", without_data)
    assert do(asked) == 2
    assert do(f"{asked} --data my-shards") == 0


def commands_of(document: Path) -> list[str]:
    """Return the commands in the code blocks of a document, without their remarks."""
    blocks = re.findall(r"^```\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)
    return [
        line.partition("  #")[0].strip() for block in blocks for line in block.splitlines() if line.startswith("python")
    ]


ELSEWHERE = "serve", "import", "submit"
"""Verbs whose commands are run by tests/test_serving.py, test_importing.py, and test_init_from.py."""


def test_every_command_of_painting_md_runs(there: Path) -> None:
    """As they stand, in order, but for the classes' names, a bucket, and fewer steps; each writes its file."""
    commands = [command for command in commands_of(HOME / "docs" / "painting.md") if verb(command) not in ELSEWHERE]
    assert len(commands) >= 23
    for command in commands:
        for name, ours in (("cats", "red"), ("dogs", "blue"), ("s3://bucket/model", "pushed")):
            command = command.replace(name, ours)
        words = shlex.split(command)
        assert words[:3] == shlex.split(TRAINER)
        out = Path(words[words.index("--out") + 1] if "--out" in words else words[-1])
        if out.name in ("model", "pushed"):
            shutil.rmtree(out, ignore_errors=True)  # one of several ways to make the same folder
        assert do(command, *(["--steps", "20"] if verb(command) == "project" else [])) == 0, command
        assert out.exists(), command
        if out.suffix == ".png":
            Image.open(out).verify()


def verb(command: str) -> str:
    """Return what a command does."""
    return command.split()[3]
