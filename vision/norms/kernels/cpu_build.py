"""Builds the package's C++ kernels: once per machine, source and compiler, into a cache folder.

Several processes may ask at once: one builds under a lock, the others wait for it, and a library
appears under its name only when it is whole.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

# -fopenmp only while compiling: linking it would load a second OpenMP runtime beside torch's
_COMPILE = "-O3 -march=native -std=c++17 -fopenmp -fno-math-errno -fno-trapping-math".split()
_COMPILE += ["-fPIC", "-fvisibility=hidden"]
if platform.machine() == "x86_64":
    _COMPILE.append("-mprefer-vector-width=512")
_HEADERS = Path(__file__).with_name("cpu")
_TIMEOUT = 300  # seconds
_log = logging.getLogger("vision")


class UnavailableError(RuntimeError):
    """A backend cannot work here; the message says why."""


@cache
def load_library(source: Path, with_torch: bool = False) -> ctypes.CDLL:
    """The shared library of a C++ file; builds it unless this machine has it already.

    Args:
        source: The file.
        with_torch: Whether it uses torch's own C++; that takes seconds to build.

    Raises:
        UnavailableError: there is no compiler, or the build fails, or the result cannot be loaded.
    """
    compiler = find_compiler()
    folder = cache_folder()
    flags, links = _torch_flags() if with_torch else ([], [])
    target = folder / f"{source.stem}-{_key(source, [compiler, *_COMPILE, *flags])}.so"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            _build(source, [compiler, *_COMPILE, *flags], links, target)
        return ctypes.CDLL(str(target))
    except OSError as error:
        raise UnavailableError(
            f"no library could be made in {folder} ({error}); set VISION_KERNEL_CACHE to a folder "
            "that can be written to and from which programs may run"
        ) from error


def find_compiler() -> str:
    """Path of the C++ compiler: $CXX, or g++.

    Raises:
        UnavailableError: there is none, or this system is not Linux.
    """
    if platform.system() != "Linux":
        raise UnavailableError(f"the C++ kernels are built on Linux only, not {platform.system()}")
    wanted = os.environ.get("CXX") or "g++"
    path = shutil.which(wanted)
    if path is None:
        raise UnavailableError(f"no C++ compiler {wanted!r} on PATH; install g++ 12 or newer")
    return path


def cache_folder() -> Path:
    """Where built libraries are: $VISION_KERNEL_CACHE, or vision/kernels in the user's cache."""
    if chosen := os.environ.get("VISION_KERNEL_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "vision" / "kernels"


def _torch_flags() -> tuple[list[str], list[str]]:
    """What a file that includes torch's headers is compiled and linked with."""
    torch_folder = Path(torch.__file__).parent
    include = torch_folder / "include"
    flags = [
        "-std=c++20",
        "-O2",
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
    ]
    flags += [f"-I{include}", f"-I{include / 'torch' / 'csrc' / 'api' / 'include'}"]
    flags.append(f"-DTORCH_VERSION_OF_THIS_BUILD={torch.__version__.encode().hex()}")
    return flags, [f"-L{torch_folder / 'lib'}", "-lc10", "-ltorch_cpu"]


def _key(source: Path, command: list[str]) -> str:
    """A hash of all that the library depends on: source, headers, flags, compiler and processor."""
    version = subprocess.run([command[0], "--version"], capture_output=True, check=False).stdout
    files = [source, *sorted(_HEADERS.glob("*.h"))]
    parts = [file.read_bytes() for file in files]
    parts += [" ".join(command).encode(), version]
    return hashlib.sha256(b"\0".join([*parts, _processor().encode()])).hexdigest()[:16]


def _processor() -> str:
    """The instruction set; different machines may share a home folder."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.lower().startswith(("flags", "features")):
                return platform.machine() + line
    return platform.machine()


def _build(source: Path, command: list[str], links: list[str], target: Path) -> None:
    import fcntl  # on Linux only, where `find_compiler` has found this to be

    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system if the process dies
        if target.exists():  # another process has built it meanwhile
            return
        if links:
            _log.info("compiling %s with torch's headers, once per machine: some 20 s", source.name)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            compiled, linked = Path(scratch) / "kernel.o", Path(scratch) / "kernel.so"
            _run([*command, f"-I{_HEADERS}", "-c", str(source), "-o", str(compiled)])
            _run([command[0], "-shared", str(compiled), "-o", str(linked), *links])
            linked.replace(target)


def _run(command: list[str]) -> None:
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{' '.join(command)} took over {_TIMEOUT} s") from error
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        reason = next((line for line in lines if "error" in line), lines[-1] if lines else "")
        raise UnavailableError(f"{command[0]} cannot compile the kernel: {reason}")
