"""Fetch weights, configurations and tokenizers; without a network, say at once how to copy them.

The cache is asked first, without any call to a server. Only for what is not in it is a server
asked, and only once it has answered at all.
"""

from __future__ import annotations

import contextlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub
import open_clip
from huggingface_hub import constants
from open_clip import pretrained

from radapter.errors import BrokenInput

T = TypeVar("T")
ANSWERS_WITHIN = 3.0
"""Seconds for a server to answer at all; open_clip itself would wait for minutes."""
CONFIG = "open_clip_config.json"
TOKENIZER = "tokenizer.json, tokenizer_config.json, special_tokens_map.json and, if any, *.model"
OF_TEXT = ("*.json", "*.model", "*.txt")
"""What is fetched of a repository that a tokenizer or the form of a text tower is taken from"""
Wanted = Mapping[str, tuple[str, tuple[str, ...]]]
"""Of a repository OWNER/NAME: its files, in words, and as patterns for `hf download`"""


def weights(
    name: str, architecture: str, tag: str, known: Mapping[str, Any], besides: Wanted | None = None
) -> Path:
    """The file of a tag's weights, in open_clip's cache.

    Args:
        name: what the user gave.
        known: what open_clip says of the tag: `hf_hub` or `url`.
        besides: what the model needs, too, so that the user is told all at once.

    Raises:
        BrokenInput: it is not in the cache and cannot be fetched.
    """
    instead = f"or copy that file here and name it, as {architecture}:FILE,like={tag}"
    if not known.get("hf_hub"):
        url = str(known.get("url"))
        path = Path.home() / ".cache" / "clip" / os.path.basename(url)
        if path.is_file():
            return path
        try:
            _check_answers(url)
            return Path(pretrained.download_pretrained_from_url(url))
        except Exception as error:
            raise BrokenInput(
                f"The weights of {name} are not on this machine and cannot be fetched "
                f"({_reason(error)}). Download {url} where there is a network, and copy it to "
                f"{path}, {instead}."
            ) from error
    repository, file = os.path.split(known["hf_hub"])
    file = file or pretrained.HF_WEIGHTS_NAME
    return _file(name, repository, file, "" if besides else instead, besides)


def repository(name: str, owner_and_name: str) -> tuple[Path, Path]:
    """open_clip_config.json and the weights of a repository in open_clip's form.

    Raises:
        BrokenInput: they are not in the cache and cannot be fetched.
    """
    safe, other = pretrained.HF_SAFE_WEIGHTS_NAME, pretrained.HF_WEIGHTS_NAME
    besides = {owner_and_name: (f"{safe} (or {other}), with its tokenizer,", (safe, *OF_TEXT))}
    config = _file(name, owner_and_name, CONFIG, besides=besides)
    return config, _file(name, owner_and_name, other)


def _file(
    name: str, repository: str, file: str, instead: str = "", besides: Wanted | None = None
) -> Path:
    files = [*pretrained._get_safe_alternatives(file), file]

    def fetch() -> Path:
        for each in files[:-1]:
            with contextlib.suppress(Exception):
                return Path(huggingface_hub.hf_hub_download(repository, each))
        return Path(huggingface_hub.hf_hub_download(repository, files[-1]))

    words = f"{' (or '.join(files)}{')' * (len(files) > 1)}"
    wanted = {repository: (words, tuple(files[:1]))}
    for other, (more, patterns) in (besides or {}).items():
        if other == repository:
            more, patterns = f"{words} and {more}", (*files[:1], *patterns)
        wanted[other] = more, patterns
    return cached_or_fetched(fetch, name, wanted, instead)


def cached_or_fetched(fetch: Callable[[], T], name: str, wanted: Wanted, instead: str = "") -> T:
    """What comes of files in repositories of huggingface.co: from the cache, else fetched.

    Args:
        fetch: asks the hub for them; it may be called twice.
        name: of the model, for messages.
        wanted: the files.
        instead: another way for the user than the cache.

    Raises:
        BrokenInput: it cannot be fetched; says what to type, and where.
        ImportError: a package is not installed that it needs.
    """
    with contextlib.suppress(OSError, ValueError, RuntimeError), offline():
        return fetch()
    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        for repository in wanted:
            _check_answers(f"{constants.ENDPOINT}/{repository}")
        return fetch()
    except ImportError:
        raise
    except Exception as error:
        what = " and ".join(f"{words} of {repository}" for repository, (words, _) in wanted.items())
        types = " && ".join(
            " ".join([f"hf download {repository}", *(f"--include '{each}'" for each in patterns)])
            for repository, (_, patterns) in wanted.items()
        )
        folders = " and ".join(f"models--{name.replace('/', '--')}" for name in wanted)
        raise BrokenInput(
            f"{name} needs {what} on huggingface.co. That is not on this machine and cannot be "
            f"fetched ({_reason(error)}). Where there is a network, type: {types}; "
            f"then copy {folders} of its ~/.cache/huggingface/hub to "
            f"{constants.HF_HUB_CACHE}{', ' * bool(instead)}{instead}."
        ) from error


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """The hub's libraries take what is in their cache, and wait for nobody."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def tokenizer(open_clip_name: str, text_cfg: Mapping[str, Any]) -> Any:
    """The tokenizer of a model that open_clip knows by this name or finds in this place.

    Transformers looks for a config.json beside a tokenizer, too, and a copied cache does not say
    that there is none. A folder may lack it, so the copy is then opened as a folder.
    """
    try:
        return open_clip.get_tokenizer(open_clip_name)
    except OSError:
        repository = str(text_cfg.get("hf_tokenizer_name"))
        path = huggingface_hub.try_to_load_from_cache(repository, "tokenizer_config.json")
        if not isinstance(path, str):
            raise
    return open_clip.tokenizer.HFTokenizer(
        os.path.dirname(path),
        context_length=text_cfg.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
        tokenizer_mode=text_cfg.get("tokenizer_mode"),
        **text_cfg.get("tokenizer_kwargs", {}),
    )


def _reason(error: BaseException) -> str:
    return " ".join(str(getattr(error, "reason", "") or error).split())[:200]


def _check_answers(server: str) -> None:
    """Any answer will do, through whatever proxy the environment names."""
    try:
        request = urllib.request.Request(server, method="HEAD")
        urllib.request.urlopen(request, timeout=ANSWERS_WITHIN).close()
    except urllib.error.HTTPError:
        pass
