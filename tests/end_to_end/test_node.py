"""A bundle in Node, with transformers.js, which runs onnxruntime-node.

The packages come from the npm registry at test time, at the versions and with the hashes of
package-lock.json, into a temporary folder (0.5 GB, gone after the test). Without Node or the
registry the test is skipped, unless RADAPTER_REQUIRE=node says that it has to run.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from radapter.export import golden

HERE = Path(__file__).parent / "node"


def unavailable(reason):
    if "node" in os.environ.get("RADAPTER_REQUIRE", "").split(","):
        pytest.fail(f"{reason}, and RADAPTER_REQUIRE says that it must be")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the script and its packages."""
    if not (shutil.which("node") and shutil.which("npm")):
        unavailable("Node and npm are not here")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout.lstrip("v").split(".")[0]) < 20:
        unavailable(f"Node is {version.stdout.strip()}, not 20 or newer")
    folder = shutil.copytree(HERE, tmp_path_factory.mktemp("node") / "node")
    # Their scripts would fetch CUDA libraries; what runs on the CPU is in the packages.
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=400, check=False
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "npm error" in line]
            unavailable(f"npm cannot install: {' '.join(lines)[:300] or done.stderr[-300:]}")
        yield folder
    except subprocess.TimeoutExpired:
        unavailable("npm could not install in 400 seconds")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow  # half a gigabyte to unpack
def test_transformers_js_gives_pytorchs_features(installed, exported):
    command = ["node", installed / "check_golden.mjs", exported]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["texts"] == len(golden.EQUAL)
    assert found["text_embeds"] < golden.FEATURE_TOLERANCE
    assert found["text_embeds_by_its_tokenizer"] < golden.FEATURE_TOLERANCE
    assert found["image_embeds"] < golden.FEATURE_TOLERANCE
    # Known of transformers.js 4.3, and said in docs/export.md: it cuts a long text without the
    # end token, and makes pictures smaller without smoothing. If these fail, it has become better.
    assert found["other_ids"] == ["word " * 100, "🙂" * 90]
    assert found["pixel_values"] > 100 * golden.PIXEL_TOLERANCE
