"""`python -m trainer.training.measuring_process RUN --device DEVICE`: measures the generator beside training.

A request is a line of JSON on standard input, followed by the weights as safetensors; its answer is a line of JSON on
standard output. It ends with its input, so with the process that trains.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the number of threads changes the bits on a CPU

import argparse
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors.torch import load
from torch import Tensor

from shards.dataset.stream import Reader
from trainer.config.dataset import open_data
from trainer.core.stopping import REQUESTS
from trainer.distributed.numerical_environment import choose_kernels
from trainer.runs.config_loading import read_config
from trainer.runs.run_folder import RunFolder
from trainer.training.sample_grids import Request, SampleGrids


def requests(source: BinaryIO) -> Iterator[tuple[Request, dict[str, Tensor]]]:
    """Yield the requests with their weights, until the source ends."""
    while line := source.readline():
        header = json.loads(line)
        number = header.pop("bytes")
        weights = source.read(number)
        if len(weights) < number:
            return  # the trainer was killed while it wrote
        yield Request(**header), load(weights)


def main() -> None:
    """Answer until the input ends."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--device", type=torch.device, required=True)
    arguments = parser.parse_args()
    for number in REQUESTS:
        signal.signal(number, signal.SIG_IGN)  # Slurm sends them to every process of a job; the trainer decides
    # Only answers go to the trainer, whatever a library prints.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    run = RunFolder(arguments.run)
    config = read_config(run)
    torch.set_num_threads(1)
    choose_kernels(config.deterministic)  # as in training: the same bits as in line
    reader = Reader(open_data(config), "train", lambda sample, problem: None, config.network.label_names)
    grids = SampleGrids(config, run, reader, arguments.device)
    grids.warm_up()  # while training begins
    for request, weights in requests(sys.stdin.buffer):
        print(json.dumps(grids(request, weights)), file=answers)


if __name__ == "__main__":
    main()
