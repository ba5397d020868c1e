"""Functions in several processes that are each other's ranks, by gloo."""

import multiprocessing
import os
import socket
from dataclasses import dataclass


@dataclass
class Failure:
    kind: type
    message: str
    step: int | None


def in_ranks(count, function, *arguments):
    """What `function` gives in each of `count` forked processes with torchrun's variables."""
    fork = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def work(rank, ends):
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": str(port),
            "GLOO_SOCKET_IFNAME": "lo",
        }
        try:
            ends.send(function(*arguments))
        except BaseException as error:
            ends.send(Failure(type(error), str(error), getattr(error, "step", None)))

    pipes, processes = [], []
    for rank in range(count):
        mine, theirs = fork.Pipe(duplex=False)
        pipes.append(mine)
        processes.append(fork.Process(target=work, args=(rank, theirs)))
        processes[-1].start()
        theirs.close()
    try:
        assert all(pipe.poll(60) for pipe in pipes), "a rank hangs"
        return [received(pipe) for pipe in pipes]
    finally:
        for process in processes:
            process.join(5)
            process.kill()


def received(pipe):
    try:
        return pipe.recv()
    except EOFError:  # it was killed
        return None


def results(found):
    failures = [value for value in found if isinstance(value, Failure)]
    assert not failures
    return found
