"""A warm process that runs radapter's commands in forks of itself, and kills them.

Importing takes seconds and a tiny command a tenth of one: so everything is imported once, and every
command is a fork. A line of JSON on stdin is a command, a line on stdout what became of it:

    argv     the command line without `radapter`
    cwd      where it runs
    after    kill it by SIGKILL after so many seconds, or
    at       within its n-th operation on a file below cwd (open for writing, sync, rename, remove,
             ...); if that is a sync, what was to be synced is cut in half first, as the loss of
             power may leave it
    bundle   with `export`: take the ONNX files from this bundle instead of converting the model,
             which takes seconds, and the figures of running them from its manifest

    ->  code (negative: killed by that signal), seconds, operations (if it was not killed)
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import open_clip
import torch

torch.set_num_threads(1)  # before any thread is started: threads do not survive a fork

import radapter.evaluation  # noqa: E402
import radapter.export  # noqa: E402
import radapter.merging  # noqa: E402
import radapter.training  # noqa: F401, E402
from radapter_cli import main  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny  # noqa: E402

COUNT = ".operations"
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.utime"}


def watch(cwd, at):
    """Count operations below cwd, and end this process within the `at`-th, if there is an `at`."""
    done = [0]
    inside = f"{cwd}{os.sep}"

    def one_more(before_the_end=lambda: None):
        done[0] += 1
        if done[0] == at:
            before_the_end()
            os.kill(os.getpid(), signal.SIGKILL)

    def absolute(path):
        return os.path.join(os.getcwd(), os.fsdecode(path))

    def hook(event, args):
        if event == "open":
            path, _, flags = args
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            if not writes or not isinstance(path, str | bytes):
                return
        elif event not in CHANGES or not isinstance(args[0], str | bytes | os.PathLike):
            return
        if absolute(args[0]).startswith(inside):
            one_more()

    real = os.fsync

    def fsync(descriptor):
        def cut():
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path.is_file():
                os.truncate(path, path.stat().st_size // 2)

        one_more(cut)
        real(descriptor)

    os.fsync = fsync
    sys.addaudithook(hook)
    return done


def take_from(bundle):
    from radapter.export import bundling

    figures = json.loads((Path(bundle) / "manifest.json").read_text())["models"]

    def export_towers(model, folder, *args, **settings):
        for path in sorted((Path(bundle) / "onnx").iterdir()):
            shutil.copyfile(path, folder / "onnx" / path.name)

    def verify(folder, *args):
        wanted = ("worst_cosine", "max_abs_difference")
        return {file: {k: facts[k] for k in wanted} for file, facts in figures.items()}

    bundling.export_towers, bundling.verify = export_towers, verify


def command(order):
    """The forked process: it does not return."""
    cwd = order["cwd"]
    os.chdir(cwd)
    log = os.open(f"{cwd}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    done = watch(cwd, order.get("at"))
    if order.get("bundle"):
        take_from(order["bundle"])
    sys.argv = ["radapter", *order["argv"]]
    code = 1
    try:
        main.run()
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        Path(f"{cwd}{COUNT}").write_text(str(done[0]))
        os._exit(code)


def serve():
    open_clip.SimpleTokenizer.__init__ = tiny.shared_vocabulary()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        count = Path(f"{order['cwd']}{COUNT}")
        count.unlink(missing_ok=True)
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            command(order)
        if "after" in order:
            time.sleep(order["after"])
            os.kill(pid, signal.SIGKILL)  # it is a zombie at the least: the number is still its own
        _, status = os.waitpid(pid, 0)
        answer = {
            "code": os.waitstatus_to_exitcode(status),
            "seconds": time.monotonic() - start,
            "operations": int(count.read_text()) if count.exists() else None,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
