"""What a person sees who trains in a terminal: two bars with the time left, lines above them."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def in_terminal(command: list[str], environment: dict[str, str], columns: int) -> str:
    """All that `command` prints into a terminal."""
    ours, theirs = pty.openpty()
    wide = environment | {"TERM": "xterm", "COLUMNS": str(columns), "LINES": "40"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=wide, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    printed = b""
    try:
        while block := os.read(ours, 1 << 16):
            printed += block
    except OSError:  # Linux's way to say that the other end is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0, printed.decode()
    return printed.decode()


@pytest.mark.slow
@pytest.mark.parametrize("columns", [150, 80])
def test_bars_of_epoch_and_run_with_messages_above_them(
    environment: dict[str, str], small: list[str], tmp_path: Path, columns: int
) -> None:
    kept = [text for text in small if text != "trainer.progress_bar=false"]
    where = ["norm.name=seednorm", f"output_dir={tmp_path}", "name=run"]
    command = [sys.executable, "tools/train.py", "configs/vit_ti.yaml", *kept, *where]
    printed = in_terminal(command, environment, columns)
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", printed)
    lines = [line.strip() for line in re.split(r"[\r\n]+", shown)]
    assert lines[0] == "loading torch, timm and Lightning ..."
    # 40 steps of 32 of 1,257 images, twice; the last line of each bar
    bars = {name: [text for text in lines if text.startswith(name)] for name in ("Run", "Epoch 2")}
    for name, total in (("Run", 78), ("Epoch 2", 39)):
        assert re.search(rf" {total}/{total} +\d:\d\d:\d\d • \d:\d\d:\d\d", bars[name][-1])
    # in one line each, whatever the width; metrics only where there is room
    end = r" +loss: [\d.]+ images/s: [\d.]+" if columns == 150 else ""
    assert re.search(rf"it/s{end}$", bars["Epoch 2"][-1])
    assert all(text.endswith("it/s") for text in bars["Run"])
    # the message came while there was a bar, and stands in a line of its own
    (message,) = [text for text in lines if "SeeDNorm on cpu" in text]
    assert message.startswith("SeeDNorm on cpu float32: backend")
    assert any(text.startswith("epoch 2/2  train/loss") for text in lines)
