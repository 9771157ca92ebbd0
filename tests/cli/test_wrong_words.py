"""Invalid arguments on the command line: one line with the remedy, exit code 2, and no work before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from console import Outcome, assert_one_line, must_not_start

from alexnet_mf.bench import run as bench
from alexnet_mf.parity import run as parity
from alexnet_mf.spec import Network

RIGHT = {"train": "train --backend numpy --data synthetic", "shapes": "shapes --backend numpy", "list": "list",
         "analyze": "analyze --no-measure", "bench": "bench --backends numpy", "parity": "parity",
         "trace": "parity trace --backend numpy --out t", "predict": "predict run x.png",
         "report": "bench --report", "measure": "analyze --backend numpy"}
"""Valid commands, which the words of the table are appended to. The last of two equal flags counts."""

TABLE = [  # commands; words; fragments of the message, separated by "; "
    ("analyze bench parity shapes trace train", "--net lenet", "unknown network 'lenet'; known: alexnet, alexnet-tab"),
    ("analyze train", "--net gone.toml", "gone.toml: cannot be read"),
    ("analyze trace", "--backend jax", "jax; torch"),
    ("bench parity", "--backends torch,jax", "jax; torch"),
    ("parity", "--backends=", "''; torch"),
    ("analyze bench parity trace", "--batch-size x", "--batch-size; 'x'"),
    ("analyze bench parity trace", "--batch-size 0", "--batch-size; at least 1"),
    ("bench", "--batch-size 32,x", "--batch-size; 'x'"),
    ("bench", "--batch-size=", "--batch-size; ''"),
    ("measure", "--batch-size 1000000000", "a batch of 1000000000 does not fit; --no-measure"),
    ("bench parity trace train", "--seed -1", "--seed; -1"),
    ("parity trace", "--steps 0", "--steps; at least 1"),
    ("parity trace", "--images -1", "--images; -1"),
    ("bench parity", "--python numpy", "--python; NAME=PATH; 'numpy'"),
    ("bench parity", "--python numpy=", "NAME=PATH; 'numpy='"),
    ("bench parity", "--python =/bin/sh", "NAME=PATH; '=/bin/sh'"),
    ("bench parity", "--python jax=/bin/sh", "NAME=PATH; jax; torch, tensorflow, mxnet"),
    ("bench", "--python numpy=/nowhere/python", "/nowhere/python; no such program"),
    ("parity", "--tier half", "half; bfloat16"),
    ("parity", "--net lenet5 trace --backend numpy --out z", "flags before trace; write them after it"),
    ("analyze train", "--recipe slow", "slow; book; quick"),
    ("bench", "--precision half", "--precision must be one of float32, tf32, bfloat16; 'half'"),
    ("bench", "--phases forward,backward", "--phases must be one of; forward_backward; 'backward'"),
    ("bench", "--phases=", "--phases; ''"),
    ("bench", "--ablate turbo", "--ablate must be one of allocator, autotune; 'turbo'"),
    ("bench", "--try compile+turbo", "--try must be one of allocator, autotune; 'turbo'"),
    ("bench", "--python torch=/bin/sh", "--python NAME=PATH; torch, which is not selected; --backends"),
    ("bench", "--beside 0", "--beside; at least 1"),
    ("bench", "--beside 100000", "--beside is 100,000; use at most; on this machine, 16 per core"),
    ("bench", "--rounds 0", "--rounds; at least 1"),
    ("bench", "--epoch-batches 1", "at least 2, not 1"),
    ("bench measure", "--sample-seconds 0", "--sample-seconds; above 0; '0'"),
    ("bench measure", "--sample-seconds inf", "--sample-seconds; 'inf'"),
    ("analyze bench parity", "--json /nowhere/r.json", "/nowhere/r.json; create it"),
    ("bench", "--plot /nowhere/r.png", "/nowhere/r.png; create it"),
    ("bench", "--markdown /nowhere/r.md", "/nowhere/r.md; create it"),
    ("bench", "--json - --markdown -", "cannot share standard output"),
    ("report", "", "--report"),
    ("report", "/nowhere/r.json", "/nowhere/r.json; No such file"),
    ("report", "/dev/null", "/dev/null; cannot be read"),
    *(("report", f"/dev/null {words}", f"--report measures nothing; leave out {words.split()[0]}") for words in (
        "--json -", "--backends torch", "--batch-size 32", "--device cpu", "--net alexnet", "--no-book", "--rounds 7",
        "--seed 0", "--layout", "--try fused", "--sample-seconds 1")),
    ("analyze", "--plot r.png", "--plot draws measured ceilings; leave out --no-measure"),
    ("analyze", "--device nonsense", "--no-measure measures nothing: leave out --device"),
    ("analyze", "--device auto", "--no-measure measures nothing: leave out --device"),
    ("analyze", "--rounds 3", "--no-measure measures nothing: leave out --rounds"),
    ("analyze", "--sample-seconds 1", "--no-measure measures nothing: leave out --sample-seconds"),
    ("measure", "--device tpu", "unknown device 'tpu'; cpu, cuda, cuda:N or mps"),
    ("train", "--fly", "alexnet-mf train: error: unrecognized arguments: --fly; (see alexnet-mf train --help)"),
    ("predict", "--fly", "mf predict: error: unrecognized arguments: --fly; (see alexnet-mf predict --help)"),
    ("trace", "--fly", "mf parity trace: error: unrecognized arguments: --fly; (see alexnet-mf parity trace --help)"),
    ("train", "--epoch 3", "--epoch"),  # no abbreviations: `--data` must never mean `--data-dir`
    ("train", "extra", "extra"),
    ("train", "--backend jax", "jax; torch; tensorflow; mxnet; numpy"),
    ("train", "--data mnist", "mnist: is neither; fashion-mnist; synthetic; nor a file or folder"),
    ("train", "--epochs two", "--epochs; two"),
    ("train", "--epochs 1.5", "--epochs; a whole number; '1.5'"),
    ("train", "--epochs", "--epochs"),
    ("train", "--lr fast", "--lr; fast"),
    ("train", "--seed x", "--seed; 'x'"),
    ("train", "--epochs 0", "epochs; at least 1; 0"),
    ("train", "--batch-size 0", "--batch-size; at least 1, not '0'"),
    ("train", "--limit-train 0", "--limit-train; at least 1, not '0'"),
    ("train", "--limit-train 60001", "--limit-train is 60,001, but there are; leave it out"),
    ("train", "--limit-test 10001", "--limit-test is 10,001, but there are; leave it out"),
    ("train", "--lr nan", "--lr must be; nan"),
    ("train", "--momentum 1", "--momentum must be less than 1"),
    ("train", "--weight-decay -1", "--weight-decay must be; -1"),
    ("train", "--dropout 1", "--dropout; less than 1"),
    ("train", "--weights /nowhere/w.safetensors", "/nowhere/w.safetensors; cannot be read"),
    ("train", "--save-weights /nowhere/w.safetensors", "/nowhere/w.safetensors; cannot be written"),
    ("train", "--json /nowhere/r.json", "/nowhere/r.json; cannot be written"),
    ("train", "--json /", "/; cannot be written"),
    ("train", "--save-weights w.pt", "writes safetensors; w.pt has the ending of torch; alexnet-mf convert RUN w.pt"),
    ("train", "--save-weights /etc/hosts", "/etc/hosts: exists; another file"),
    ("train", "--save-weights w.onnx", "w.onnx has the ending of onnx"),
    ("train", "--out /proc/run", "/proc/run: cannot be created; --out"),
    ("train", "--resume nowhere", "nowhere: there is no run here; `list runs`"),
    ("train", "--data-dir /nowhere", "the synthetic set; /nowhere; --data-dir"),
    ("train", "--data tests --data-dir .", "--data-dir is for the built-in sets; leave it out; tests"),
    ("train", "--test 1.5", "--test: must be a share between 0 and 1"),
    ("train", "--test 0.2", "is for pictures of your own; --data"),
    ("train", "--data auto --data-dir .", ".: lacks; --data-dir or ALEXNET_MF_DATA_DIR; train-images-idx3-ubyte.gz"),
    ("train", "--data fashion-mnist --data-dir .", ".: lacks all 4 files"),
    ("train", "--data auto --data-dir /etc/hosts", "/etc/hosts: not a folder"),
    ("train", "--device tpu", "unknown device 'tpu'; cpu, cuda, cuda:N or mps"),
    ("train", "--device cuda:7", "no device 'cuda:7' here; cpu"),
    ("train", "--precision float8", "float8; bfloat16"),
    ("train", "--precision bfloat16", "no precision bfloat16 on cpu; float64"),
    ("train", "--no-compile", "no setting 'compile' on cpu; none"),
    ("shapes", "--json /nowhere/s.json", "/nowhere/s.json"),
    ("list", "", "{backends,networks,runs}"),
    ("list", "layers", "layers; backends; networks"),
    ("list", "networks --json /nowhere/n.json", "/nowhere/n.json; cannot be written"),
    ("list", "networks --toml", "--toml; the name of one network; lenet5"),
    ("list", "networks lenet5 --toml --json -", "--toml; --json"),
    ("list", "networks gone.toml", "gone.toml; cannot be read; `list networks NAME --toml`"),
    ("list", "backends torch", "list backends takes no name"),
    ("list", "backends --runs runs", "list backends takes no --runs"),
    ("list", "networks --runs runs", "list networks takes no --runs"),
    ("list", "backends --toml", "list backends takes no name and no --toml"),
    ("predict", "--top 0", "--top; at least 1"),
    ("predict", "--top x", "--top; 'x'"),
    ("predict", "--limit -1", "--limit; -1"),
    ("predict", "--which w", "--which"),
]
CASES = [(f"{RIGHT[name]} {words}".strip(), fragments) for names, words, fragments in TABLE for name in names.split()]
CASES += [("parity trace --out t", "--backend"), ("parity trace --backend numpy", "--out"), ("parity compare", "TRACE"),
          ("fly", "fly; train; shapes; list"), ("shapes", "--backend")]


@pytest.mark.parametrize(("line", "fragments"), CASES, ids=[line for line, _ in CASES])
def test_invalid_arguments_give_one_line_with_the_remedy(command: Callable[..., Outcome], small_alexnet: Network,
                                                         monkeypatch: pytest.MonkeyPatch, line: str,
                                                         fragments: str) -> None:
    monkeypatch.setattr(bench, "Bench", must_not_start)
    monkeypatch.setattr(parity, "trace_in_process", must_not_start)
    prints_first = line.startswith("analyze --backend")  # the predictions
    assert_one_line(command(*line.split()), *fragments.split("; "), out=None if prints_first else "")
