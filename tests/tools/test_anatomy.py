"""`tools/anatomy.py` through its command line."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision.norms import list_norms

FACTORS = ("0.01", "1", "100")
METRICS = ("output size", "Jacobian norm", "norm kept", "saturated")
Row = dict[tuple[str, str], float | None]  # (metric, factor) -> value


def table(text: str) -> dict[str, Row]:
    """The printed table by norm; "parameters" and "input" have no factor."""
    lines = text.partition("\nnorm ")[2].partition("\n\n")[0].splitlines()
    assert lines[0].split()[:2] == ["parameters", "input"]
    keys = [("parameters", ""), ("input", ""), *((m, f) for m in METRICS for f in FACTORS)]
    assert lines[0].split()[2:] == [f"x{factor}" for _, factor in keys[2:]]
    rows = {}
    for line in lines[1:]:
        name, *texts = line.split()
        values = [None if t == "-" else float(t.replace(",", "")) for t in texts]
        rows[name] = dict(zip(keys, values, strict=True))
    return rows


def over_sizes(row: Row, metric: str) -> list[float | None]:
    return [row[metric, factor] for factor in FACTORS]


def test_what_the_papers_say_of_their_norms(tool, tmp_path: Path) -> None:
    target = tmp_path / "new" / "picture.png"
    names = ["layernorm", "rmsnorm", "seednorm", "seednorm:num_heads=16,alpha_init=0.5", "dyt"]
    rows = table(tool("anatomy", *names, "--output", target).stdout)
    assert list(rows) == names
    assert [row["parameters", ""] for row in rows.values()] == [384, 192, 576, 576, 385]
    assert [row["input", ""] for row in rows.values()] == [pytest.approx(1, abs=0.01)] * 5

    for name in ("layernorm", "rmsnorm"):  # they forget the input's norm (but for eps)
        assert over_sizes(rows[name], "norm kept") == [pytest.approx(0.01, abs=1e-3), 0, 0]
        assert over_sizes(rows[name], "output size") == pytest.approx([1, 1, 1], abs=0.01)
        assert over_sizes(rows[name], "Jacobian norm") == pytest.approx([100, 1, 0.01], rel=0.01)
        assert over_sizes(rows[name], "saturated") == [None] * 3

    dyt = rows["dyt"]  # linear with slope 1/2, then saturated
    assert dyt["norm kept", "0.01"] == 1
    assert dyt["Jacobian norm", "0.01"] == 0.5
    assert dyt["output size", "0.01"] == pytest.approx(0.005, rel=0.01)
    # tanh(50 z) is above 0.99 where |z| > 0.0529, of normal z
    assert over_sizes(dyt, "saturated") == [0, 0, pytest.approx(0.958, abs=0.005)]
    assert dyt["norm kept", "100"] < 0.1

    seednorm = rows["seednorm"]  # between the two, and its output stays within alpha of RMSNorm's
    assert 0.1 < seednorm["norm kept", "1"] < dyt["norm kept", "1"]
    assert seednorm["output size", "0.01"] == pytest.approx(1, abs=0.01)
    assert seednorm["output size", "100"] == pytest.approx(2**0.5, rel=0.05)  # scales 0 and 2
    assert sorted(over_sizes(seednorm, "saturated")) == over_sizes(seednorm, "saturated")
    assert seednorm["saturated", "100"] > 0.9
    assert [file.name for file in target.parent.iterdir()] == ["picture.png"]
    assert (np.asarray(Image.open(target).convert("L")) < 250).mean() > 0.01


@pytest.mark.parametrize(
    ("name", "limits"),
    [  # of |x| at sizes 1 and 100 where the function is at 0.99 of its bound
        ("dyt", (5.29, 0.0529)),
        ("derf", (3.64, 0.0364)),
        ("isru", (14.04, 0.1404)),
        ("dyisru", (97.2, 0.972)),  # slope 1 and the bound √192
        ("bhyt", (13.2, 13.2)),  # of an input that was divided by its RMS
    ],
)
def test_what_is_saturated_of_normal_tokens(
    forked, tmp_path: Path, name: str, limits: tuple[float, float]
) -> None:
    output = forked("tools/anatomy.py", name, "--output", tmp_path / "a.png").stdout
    expected = [1 - math.erf(limit / 2**0.5) for limit in limits]
    assert over_sizes(table(output)[name], "saturated")[1:] == pytest.approx(expected, abs=0.005)


def test_without_noise_seednorm_starts_as_rmsnorm(forked, tmp_path: Path) -> None:
    arguments = ("rmsnorm", "seednorm", "--noise", 0, "--width", 48)
    rows = table(forked("tools/anatomy.py", *arguments, "--output", tmp_path / "a.png").stdout)
    for metric in METRICS[:3]:
        assert over_sizes(rows["seednorm"], metric) == over_sizes(rows["rmsnorm"], metric)
    assert over_sizes(rows["seednorm"], "saturated") == [0, 0, 0]
    assert [row["parameters", ""] for row in rows.values()] == [48, 144]


@pytest.mark.slow
def test_all_norms_are_drawn_and_the_seed_decides(forked, tmp_path: Path) -> None:
    def run(seed: int, name: str) -> tuple[str, bytes]:
        target = tmp_path / name
        given = ["--width", 96, "--seed", seed, "--output", target]
        output = forked("tools/anatomy.py", *given).stdout
        return output.replace(name, ""), target.read_bytes()

    first = run(1, "a.png")
    assert run(1, "b.png") == first
    assert run(2, "c.png")[0] != first[0]
    rows = table(first[0])
    assert list(rows) == list_norms()
    for name, row in rows.items():
        assert np.isfinite([v for v in row.values() if v is not None]).all(), name
        assert row["output size", "1"] > 0, name


@pytest.fixture(scope="module")
def trained_mae(forked, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("mae")
    forked(
        "tools/train.py", "configs/mae_ti.yaml", "norm.name=dyt", *small,
        "trainer.epochs=1", "optim.warmup_epochs=0", "mae.decoder_embed_dim=32",
        "mae.decoder_num_heads=2", "mae.knn_every_n_epochs=null", f"output_dir={output}",
        "name=run",
    )  # fmt: skip
    return output / "run"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "layers"),
    [
        ("trained", [f"blocks.{i}.norm{j}" for i in (0, 1) for j in (1, 2)] + ["norm"]),
        ("trained_dit", ["blocks.0.norm1", "blocks.1.norm2", "final_layer.norm_final"]),
        ("trained_mae", ["encoder.blocks.0.norm1", "decoder_blocks.0.norm2", "decoder_norm"]),
    ],
)  # fmt: skip
def test_the_norms_of_a_trained_run_by_layer(
    forked, request: pytest.FixtureRequest, tmp_path: Path, run: str, layers: list[str]
) -> None:
    arguments = ("--run", request.getfixturevalue(run), "--output", tmp_path / "a.png")
    result = forked("tools/anatomy.py", *arguments)
    rows = table(result.stdout)
    assert [name for name in rows if name in layers] == layers
    assert len({row["input", ""] for row in rows.values()}) > 2  # each has its own input
    for row in rows.values():
        assert np.isfinite(list(row.values())).all()
        few, _, many = over_sizes(row, "saturated")  # SeeDNorm and DyT have a tanh
        assert few < 0.1 < many <= 1
    assert Image.open(tmp_path / "a.png").width > 1000
    again = forked("tools/anatomy.py", *arguments)
    assert again.stdout == result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seednrom"], r"^error: unknown norm 'seednrom'; did you mean 'seednorm'\?"),
        (["dyt:alpha=1"], "^error: norm 'dyt' has no option 'alpha'; did you mean"),
        (["seednorm:num_heads=7"], "^error: num_heads=7 does not divide dim=192"),
        (["dyt", "--noise", "-1"], "--noise -1.0: expected a number of at least 0"),
        (["--run", "nowhere"], "^error: nowhere: no such checkpoint; expected a run directory"),
        (["dyt", "--run", "x"], "error: norms: has no effect with --run$"),
        (["dyt", "--images", "2"], "error: images: has no effect without --run$"),
        (["dyt", "--output", "picture"], r"picture: expected a name that ends in \.png"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    forked, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = forked("tools/anatomy.py", *arguments, code=2, folder=tmp_path)
    (line,) = [line for line in result.stderr.splitlines() if "error: " in line]
    assert re.search(message, line)
    assert list(tmp_path.iterdir()) == []


def test_coefficients_are_drawn_by_patch_for_a_vit_with_seednorm(
    forked, trained: Path, trained_dit: Path, tmp_path: Path
) -> None:
    output = tmp_path / "coefficients.png"
    given = ["--run", trained, "--coefficients", "--output", output]
    said = forked("tools/anatomy.py", *given, "--images", 3)
    # norm1 and norm2 of two blocks, and the last one
    assert said.stdout == f"written  {output}: 3 images, 5 norms\n"
    pixels = np.asarray(Image.open(output).convert("RGB")).astype(int)
    colored = (abs(pixels[..., 0] - pixels[..., 2]) > 30).mean()
    assert colored > 0.02  # it has learned: beta was 0, for which all is white
    output.unlink()
    said = forked("tools/anatomy.py", "--run", trained_dit, *given[2:], code=2)
    assert "expected a checkpoint of task classify" in said.stderr
    assert not output.exists()
