"""Functions in several processes that are each other's ranks, by gloo."""

import multiprocessing
import os
import socket
from dataclasses import dataclass

import torch

# From a process that has imported torch and done nothing else: autograd refuses to work in a fork
# of one in which it has started threads, as it does for some tests that came before.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["radapter.training", "radapter.evaluation"])


@dataclass
class Failure:
    kind: type
    message: str
    step: int | None


def in_ranks(count, function, *arguments):
    """What `function`, one of a module, gives in each of `count` processes with torchrun's
    variables."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    pipes, started = [], []
    for rank in range(count):
        mine, theirs = processes.Pipe(duplex=False)
        pipes.append(mine)
        facts = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
        given = (facts, torch.get_num_threads(), theirs, function, arguments)
        started.append(processes.Process(target=work, args=given))
        started[-1].start()
        theirs.close()
    try:
        assert all(pipe.poll(400) for pipe in pipes), "a rank hangs"
        return [received(pipe) for pipe in pipes]
    finally:
        for process in started:
            process.join(5)
            process.kill()


def work(facts, threads, ends, function, arguments):
    torch.set_num_threads(threads)
    multiprocessing.set_start_method("fork", force=True)  # for loaders, as in any other process
    os.environ |= {key: str(value) for key, value in facts.items()}
    os.environ |= {"MASTER_ADDR": "localhost", "GLOO_SOCKET_IFNAME": "lo"}
    try:
        ends.send(function(*arguments))
    except BaseException as error:
        ends.send(Failure(type(error), str(error), getattr(error, "step", None)))


def received(pipe):
    try:
        return pipe.recv()
    except EOFError:  # it was killed
        return None


def results(found):
    failures = [value for value in found if isinstance(value, Failure)]
    assert not failures
    return found
