"""The documentation: every command runs, every output that is shown is current, generated parts are current.

All commands are parsed or checked in `tox`; they run in `tox -e exhaustive`, shortened where they would take long. Of
installing, only the names are checked: `.ci/run` installs as the README says.
"""

from __future__ import annotations

import configparser
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import photographs
import pytest
from console import Outcome, call
from PIL import Image

from alexnet_mf import api, cli, conversion, data
from alexnet_mf.spec import toml, zoo

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATE = runpy.run_path(str(ROOT / "docs" / "generate.py"))

SHORT = {  # flags that make a command short enough for a test; the last of a repeated flag counts
    "train": "--data synthetic --limit-train 8 --limit-test 8 --batch-size 4 --epochs 1",
    "trace": "--data synthetic --net lenet5 --batch-size 1 --steps 1 --images 4",
    "parity": "--data synthetic --batch-size 1 --steps 1 --images 4",
    "sweep": "--data synthetic --limit-train 8 --limit-test 8 --net lenet5,lenet5-relu --batch-size 4 --epochs 1",
    "evaluate": "--limit-test 8",
    "analyze": "--net lenet5 --batch-size 4 --rounds 1 --sample-seconds 0.01",
    "bench": "--net lenet5 --batch-size 1 --rounds 1 --epoch-batches 2 --sample-seconds 0.01",
    "gpu.py": "--device cpu --quick",
    "torch_settings.py": "--net lenet5 --batch-sizes 4 --precisions float32 --sample-seconds 0.01 --rounds 1",
    "profile_torch.py": "--net lenet5 --batch-size 4 --steps 2",
    "book_loop.py": "--images 64",
    "measure_errors.py": "--net lenet5 --data synthetic --seeds 0 --batch-sizes 1",
}
WHOLE = ("python -m alexnet_mf parity", "python -m alexnet_mf parity --net alexnet-tab")
"""Commands that run as they are, because the documentation shows their output."""
VARYING = re.compile(r"\S+ / \de-\d+|\d\.\d+e-0[5-9] \([\w.]+\)|(?<=loss )\d\.\d+|(?<=acc )\d\.\d+|\S+(?= examples/sec)"
                     r"|\d+(?= of 64 images)")
"""Numbers that another processor rounds differently: errors beside their tolerance, small errors, results, rates."""
NEAR_TIES = re.compile(r"near ties? decided|^SGD steps: \d+ steps|^The reference repeats|^Near ties are")
"""Lines that depend on the rounding of near ties."""
FILES = re.compile(r"(runs|sweeps|lenets)\b.*|[\w-]+(\.weights)?\.(safetensors|pt|h5|params|npz|onnx|json|toml)")
"""Files and folders that one command writes and another reads."""


@dataclass(frozen=True)
class Shown:
    """A command in the documentation, and the output that the page shows for it."""

    page: Path
    command: str
    output: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.command}"


def shown_commands(page: Path) -> list[Shown]:
    """Return the commands of a page. A text block between a command and the next heading is the command's output."""
    commands: list[Shown] = []
    last = ""
    for block in re.finditer(r"^(#+ )|^( *)```(\w+)\n(.*?)^\2```", page.read_text(encoding="utf-8"), re.M | re.S):
        if block[3] == "console":
            lines = [line.strip() for line in block[4].splitlines()]
            commands += [Shown(page, line[2:]) for line in lines if line.startswith("$ ")]
        elif block[3] == "text" and last == "console":
            commands[-1] = Shown(page, commands[-1].command, block[4])
        last = block[3] or ""
    return commands


COMMANDS = [command for page in PAGES for command in shown_commands(page)]
PROGRAM = [shown for shown in COMMANDS if shown.command.startswith("python -m alexnet_mf")]
SCRIPTS = [shown for shown in COMMANDS if shown.command.startswith("python benchmarks/")]
OTHERS = [shown for shown in COMMANDS if shown not in PROGRAM + SCRIPTS]


def test_the_documentation_shows_every_verb() -> None:
    text = " ".join(shown.command for shown in PROGRAM)
    for verb in ("train", "shapes", "parity", "parity trace", "parity compare", "bench", "bench --report", "sweep",
                 "sweep --resume", "list networks", "list runs", "train --resume", "plot curves", "plot filters",
                 "analyze", "evaluate", "predict", "convert"):
        assert f"alexnet_mf {verb}" in text


def test_the_readme_is_short_and_begins_with_a_result_and_two_commands() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130
    first = "\n".join(lines[:40])
    assert "torch - tensorflow  equal" in first
    _, run, test = shown_commands(README)
    assert run.command.endswith(".venv/bin/python -m alexnet_mf --backend torch") and run.command in first
    assert test.command.endswith(".venv/bin/tox") and test.command in first


def program_words(command: str) -> list[str]:
    """Return the words after `python -m alexnet_mf`, with the default verb, without a redirection."""
    words = shlex.split(command)[3:]
    words = words[:words.index(">")] if ">" in words else words
    return ["train", *words] if not words or words[0].startswith("-") else words


@pytest.mark.parametrize("shown", PROGRAM, ids=str)
def test_a_command_is_parsed(shown: Shown) -> None:
    words = program_words(shown.command)
    assert cli.parser().parse_args(words).verb == words[0]


@pytest.mark.parametrize("shown", SCRIPTS, ids=str)
def test_a_script_exists(shown: Shown) -> None:
    assert (ROOT / shlex.split(shown.command)[1]).is_file()


@pytest.mark.parametrize("shown", [pytest.param(shown, marks=pytest.mark.exhaustive if " -k " in shown.command else ())
                                   for shown in OTHERS], ids=str)
def test_another_command_names_what_exists(shown: Shown) -> None:
    """Check extras of pip, environments of tox, and tests that pytest collects. Every other command fails."""
    for part in shown.command.split(" && "):
        words = shlex.split(part)
        program, words = Path(words[0]).name, words[1:]
        if program == "pip":
            check_installed_names(words)
        elif program == "tox":
            check_tox(words)
        elif program == "pytest":
            check_collected(words)
        elif program == "python":
            assert words[:2] == ["-m", "alexnet_mf"]
            cli.parser().parse_args(program_words(part))
        else:
            assert part == "python3 -m venv .venv", "no test runs this command"


def check_installed_names(words: list[str]) -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert words[0] == "install"
    for name in words[1:]:
        extras = re.fullmatch(r"\.\[(.*)\]", name)
        assert name == "tox" or (extras and set(extras[1].split(",")) <= set(config["options.extras_require"]))


def check_tox(words: list[str]) -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "tox.ini")
    own, _, arguments = " ".join(words).partition("--")
    for name in re.findall(r"-e (\S+)", own):
        assert any(name in re.split(r"[{,}:]", section) for section in config.sections())
    if arguments:
        check_collected(shlex.split(arguments))


def check_collected(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "pytest", "--collect-only", "-q", "--backends", "numpy", *words],
                          cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and re.search(r"^\S+::", done.stdout, re.M), done.stdout


# Running


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Return the folder of a page: a command finds the files of those before it, and the reader's own pictures."""
    made: dict[Path, Path] = {}

    def folder(page: Path) -> Path:
        if page not in made:
            path = made[page] = tmp_path_factory.mktemp(page.stem)
            (path / "pictures").mkdir()
            for number, image in enumerate(data.synthetic.draw(0, train=1, test=2).test.images):
                Image.fromarray(image).resize((100, 80)).save(path / "pictures" / f"{number}.jpg")
            if page.stem == "pictures":
                photographs.write(path / "photos", 40)
        return made[page]
    return folder


@pytest.fixture(scope="module")
def unwritten() -> set[str]:
    """Return the words of the skipped commands, the names of the files that they would have written among them."""
    return set()


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """Return the outcomes of the commands in `WHOLE`, which several pages show."""
    return {}


@pytest.mark.exhaustive
@pytest.mark.parametrize("shown", [pytest.param(shown, marks=pytest.mark.real_data if shown.command in WHOLE else ())
                                   for shown in PROGRAM], ids=str)
def test_a_command_runs(shown: Shown, folders: Callable[[Path], Path], unwritten: set[str], present: list[str],
                        outcomes: dict[str, Outcome], capsys: pytest.CaptureFixture[str],
                        monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command in this process, which has imported the frameworks already; other tests run `-m alexnet_mf`."""
    words = program_words(shown.command)
    folder = folders(shown.page)
    monkeypatch.chdir(folder)
    if reason := missing_backend(words, present):
        unwritten.update(words)
        pytest.skip(f"{shown.command}: {reason}")
    for name in files_read(words):
        if not (folder / name).exists():
            writers = {name, *map(str, list(Path(name).parents)[:-1])}
            assert unwritten & writers, f"no command before this one on its page writes {name}"
            pytest.skip(f"a command of another backend writes {name}")
    whole = shown.command in WHOLE and present[:3] == ["torch", "tensorflow", "mxnet"]
    if whole and shown.command in outcomes:
        done = outcomes[shown.command]
    else:
        done = call(capsys, *words, *([] if whole else shortened(words, present)))
    if whole:
        outcomes[shown.command] = done
    if ">" in shlex.split(shown.command):
        (folder / shlex.split(shown.command)[-1]).write_text(done.out, encoding="utf-8")
    differs = "alexnet-tab" in words and {"tensorflow", "mxnet"} & set(present)
    assert done.code == (1 if differs else 0), done.err
    assert done.out.strip()
    assert "Traceback" not in done.err
    if whole or words[0] in ("shapes", "list") or words[:2] == ["analyze", "--no-measure"] or words == ["train"]:
        check_output(shown.output, done.out)


def missing_backend(words: list[str], present: list[str]) -> str:
    """Return why these backends cannot run the command, or an empty string."""
    for flag in ("--backend", "--backends"):
        if flag in words:
            names = words[words.index(flag) + 1].split(",")
            if not {*names} <= {*present, "all"}:
                return f"{', '.join(names)} did not all take part"
    if words[0] == "shapes" and "all" in words and present[:3] != ["torch", "tensorflow", "mxnet"]:
        return "the page shows all frameworks"
    if words[0] == "convert":
        for word in words[1:3]:
            backend = conversion.FORMATS[conversion.format_of_name(Path(word))].backend if "/" not in word else None
            if backend not in (None, *present):
                return f"{backend} did not take part"
    return ""


def files_read(words: list[str]) -> list[str]:
    """Return the files and run folders that a command reads."""
    written = {words[words.index(flag) + 1] for flag in ("--out", "--save-weights", "--json", "--plot", "--markdown")
               if flag in words}
    written |= {words[2]} if words[0] == "convert" else set()
    return [word for word in words[2 if words[0] == "list" else 1:] if FILES.fullmatch(word) and word not in written]


def shortened(words: list[str], present: list[str]) -> list[str]:
    """Return the flags that make a command short."""
    if {"compare", "--report", "--no-measure"} & {*words} or words[:2] == ["sweep", "--resume"]:
        return []
    kind = "trace" if "trace" in words else words[0]
    extra = shlex.split(SHORT.get(kind, ""))
    if any(word.startswith("photos") for word in words):
        extra = shlex.split(SHORT.get(kind, "").replace("--data synthetic", "").replace("--net lenet5", ""))
        if kind == "parity":
            return [*extra, "--backends", ",".join(present)]
    if kind == "parity":  # one tab that differs is enough
        differing = [name for name in present if name in ("tensorflow", "mxnet")][:1] if "alexnet-tab" in words else []
        extra += [] if "--backends" in words else ["--backends", ",".join(differing or present)]
        extra += ["--net", "lenet5,alexnet-28" if "all" in words else "lenet5"] if "alexnet-tab" not in words and \
            "mine.toml" not in words else []
    if kind == "bench":  # two processes for each backend: one backend is enough, not the reference if there is another
        names = [name for name in present if name != "numpy"]
        extra += ["--backends", names[0]] if names else ["--backends", "numpy", "--precision", "float64"]
    if kind == "sweep":  # a process for each training: the reference's start at once, but have one precision
        extra += ["--backend", present[0 if "--precision" in words else -1]]
        extra += ["--held-out", "8"] if "--held-out" in words else []
        if "--out" in words:  # the next commands read its runs
            extra[extra.index("--net") + 1] = words[words.index("--net") + 1]
            extra[extra.index("--backend") + 1] = present[0]
        else:
            extra += ["--seeds", "0"]
    return extra


def check_output(shown: str, printed: str) -> None:
    """Check that the lines of a page's output are lines of the command's, in this order, apart from `VARYING`."""
    def plain(line: str) -> str:
        return re.sub(r"\s+", " ", VARYING.sub("#", line)).strip()
    rest = iter([plain(line) for line in printed.splitlines()])
    for line in filter(None, map(plain, shown.splitlines())):
        assert re.search(NEAR_TIES, line) or line in rest, f"{line!r} is not in the output:\n{printed}"


@pytest.mark.exhaustive
@pytest.mark.real_data
@pytest.mark.parametrize("shown", SCRIPTS, ids=str)
def test_a_script_runs(shown: Shown, folders: Callable[[Path], Path], present: list[str]) -> None:
    words = shlex.split(shown.command)[1:]
    needed = {"measure_errors.py": ["torch", "tensorflow", "mxnet"]}.get(Path(words[0]).name, ["torch"])
    if not {*needed} <= {*present}:
        pytest.skip(f"{', '.join(needed)} did not all take part")
    extra = shlex.split(SHORT[Path(words[0]).name])
    done = subprocess.run([sys.executable, str(ROOT / words[0]), *words[1:], *extra], cwd=folders(shown.page),
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()


@pytest.mark.exhaustive
def test_the_python_examples_run(tmp_path: Path, requires: Callable[[str], None]) -> None:
    requires("torch")
    requires("tensorflow")

    def lines_of(example: str) -> list[str]:
        done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True,
                              check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()
    training, computing = python_examples(ROOT / "docs" / "movers" / "python.md")
    accuracy, run = lines_of(training)[-1].split()
    assert 0 <= float(accuracy) <= 1
    assert (tmp_path / run / "lenet5.onnx").stat().st_size > 4 * 61_706
    api.convert(tmp_path / run, tmp_path / "mine.pt")
    *logits, shape = lines_of(computing)
    assert len(logits) > 2 and shape == "(2, 6, 28, 28)"


def python_examples(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)```", page.read_text(encoding="utf-8"), re.M | re.S)


def test_the_layouts_example_gives_keras_its_layout() -> None:
    """A convolution's kernel in HWIO; a dense weight whose inputs are in the order height, width, channels."""
    [example] = python_examples(ROOT / "docs" / "movers" / "layouts.md")
    weights = {"conv1.weight": np.empty((96, 1, 11, 11), bool), "fc7.weight": np.empty((4096, 4096), bool),
               "fc6.weight": np.zeros((4096, 6400), bool)}
    weights["fc6.weight"][7, (3 * 5 + 4) * 5 + 2] = True  # unit 7, channel 3, row 4, column 2
    values: dict[str, np.ndarray] = {"weights": weights}  # type: ignore[dict-item]
    exec(example, {}, values)
    assert values["kernel"].shape == (11, 11, 1, 96)
    assert np.argwhere(values["fc6"]).tolist() == [[(4 * 5 + 2) * 256 + 3, 7]]


def test_the_toml_example_goes_before_the_first_layer(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "reference" / "networks.md").read_text(encoding="utf-8")
    example = re.findall(r"```toml\n(.*?)```", page, re.S)[0]
    head, header, rest = toml.dump(zoo.LENET5).partition("[[layers]]")
    (tmp_path / "mine.toml").write_text(f"{head}{example}\n{header}{rest}", encoding="utf-8")
    network = toml.load(tmp_path / "mine.toml")
    assert network.layers[1:] == zoo.LENET5.layers
    assert network.layers[0].mean == (0.2860,) and network.layers[0].std == (0.3530,)


@pytest.mark.real_data
def test_the_toml_example_has_the_mean_and_deviation_of_fashion_mnist() -> None:
    images, values = data.fashion_mnist.load().train.images, np.arange(256) / 255
    counts = sum(np.bincount(part.ravel(), minlength=256) for part in np.array_split(images, 20))
    mean = np.average(values, weights=counts)
    assert (round(mean, 4), round(np.average((values - mean)**2, weights=counts)**0.5, 4)) == (0.2860, 0.3530)


# Generated parts, links, the site


def test_generated_parts_are_current() -> None:
    parts = {name: make for name, make in GENERATE["PARTS"].items() if name not in GENERATE["backends"].FRAMEWORKS}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert GENERATE["generated"](text, parts) == text, f"{page}: run python docs/generate.py"
    assert GENERATE["DRAWING"].read_text(encoding="utf-8") == GENERATE["imports"]()


@pytest.mark.parametrize("backend_name", ["torch", "tensorflow", "mxnet"], indirect=True)
def test_a_framework_prints_the_network_as_the_page_shows_it(backend_name: str) -> None:
    page = (ROOT / "docs" / "readers" / "side-by-side.md").read_text(encoding="utf-8")
    script = f"import runpy; print(runpy.run_path({str(ROOT / 'docs' / 'generate.py')!r})['tab']({backend_name!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in page  # in a process: TensorFlow would keep the whole network's memory


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)]*)\)", text):
        if not target.startswith("http"):
            name, _, anchor = target.partition("#")
            path = page.parent / name if name else page
            assert path.is_file(), target
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M) if anchor else []
            assert not anchor or anchor in [slug(heading) for heading in headings], target


def slug(heading: str) -> str:
    """Return the anchor of a heading, the same on GitHub and on the site."""
    return re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())


@pytest.mark.exhaustive
def test_the_site_builds_without_warnings_and_asks_no_other_host(tmp_path: Path) -> None:
    for name in ("docs", "src", "zensical.toml"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    done = subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=tmp_path, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20 and (tmp_path / "site" / "search.json").is_file()
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r'<(script|img|link|iframe)[^>]*(src|href)="(https?:)?//', text), page
