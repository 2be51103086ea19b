"""Exports on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import validate_repo_id

from vision.errors import ConfigError, first_line


def check_hub(repo: str) -> None:
    """Raise ConfigError where nothing can be uploaded to `repo`: no such name, network or token."""
    try:
        validate_repo_id(repo)
        HfApi().whoami()
    except (HTTPError, OSError, ValueError) as error:
        raise _refusal(repo, error) from error


def push(folder: Path, repo: str) -> str:
    """Make the model repository `repo`, if there is none, and upload `folder`; its address.

    Raises ConfigError where the hub refuses it.
    """
    try:
        address = HfApi().create_repo(repo, exist_ok=True)
        HfApi().upload_folder(repo_id=address.repo_id, folder_path=folder)
    except (HTTPError, OSError, ValueError) as error:
        raise _refusal(repo, error) from error
    return str(address)


def _refusal(repo: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"--push-to-hub {repo}: {first_line(error)}; expected USER/NAME, a network, and a token "
        "that may write (hf auth login, or HF_TOKEN)"
    )
