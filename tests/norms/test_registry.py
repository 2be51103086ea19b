"""Names, options and errors of the registry; a user's own norm file."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

import vision.norms
from vision.norms import (
    create_norm,
    get_norm,
    list_norms,
    load_norm_module,
    norm_options,
    register_norm,
)
from vision.registry import NORMS

BUILT_IN = list_norms()  # nothing else is registered yet
ROOT = Path(vision.norms.__file__).parents[2]


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_the_norms_of_the_readme_are_built_in():
    assert {"derf", "dyisru", "dyt", "layernorm", "rmsnorm", "seednorm"} <= set(BUILT_IN)


def test_listing_the_names_leaves_torch_alone():
    done = python(
        "import sys; from vision.registry import NORMS; print(NORMS.names()); "
        "assert 'torch' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(BUILT_IN)


def test_every_name_of_the_package_exists():
    for name in vision.norms.__all__:
        assert callable(getattr(vision.norms, name))


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_built_in_file_registers_its_own_name_and_the_common_options(name):
    assert get_norm(name).__module__ == f"vision.norms.{name}"
    assert {"affine", "channels_first", "device", "dtype"} <= set(norm_options(name))
    assert "dim" not in norm_options(name)
    assert isinstance(create_norm(name, 4), vision.norms.Norm)
    assert set(list_norms()) >= set(BUILT_IN)


def test_unknown_norm_names_the_nearest_or_all_choices():
    with pytest.raises(ValueError, match="'SeedNrm'; did you mean 'seednorm'"):
        create_norm("SeedNrm", 8)
    with pytest.raises(ValueError, match="'xyz'; valid: .*derf, .*dyisru, .*dyt"):
        create_norm("xyz", 8)


def test_unknown_option_names_the_norm_the_nearest_and_the_valid_ones():
    with pytest.raises(
        ValueError, match="'seednorm' has no option 'num_head'; did you mean 'num_heads'"
    ):
        create_norm("seednorm", 8, num_head=2)
    with pytest.raises(ValueError, match="'dyt' has no option 'eps'.*valid: alpha_init, affine"):
        create_norm("dyt", 8, eps=1e-6)


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("dim", [0, -3, 8.0, True])
def test_dim_must_be_a_positive_integer(name, dim):
    with pytest.raises(ValueError, match="dim must be an integer of at least 1"):
        create_norm(name, dim)


def test_c_of_zero_is_refused():
    with pytest.raises(ValueError, match="c_init must not be 0"):
        create_norm("dyisru", 8, c_init=0)


def test_a_name_belongs_to_one_class():
    class Mine(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()

    class Other(Mine):
        pass

    register_norm("mine_alone")(Mine)
    assert register_norm("mine_alone")(Mine) is Mine
    with pytest.raises(ValueError, match="'mine_alone' is already .*Mine; give .*Other another"):
        register_norm("mine_alone")(Other)
    assert get_norm("mine_alone") is Mine


def test_a_built_in_name_is_taken_even_before_its_file_is_imported(monkeypatch):
    monkeypatch.setattr(NORMS, "registered", {})
    own = type("Derf", (vision.norms.Norm,), {})
    with pytest.raises(ValueError, match=r"'derf' is already vision\.norms\.derf; give"):
        register_norm("derf")(own)


@pytest.mark.parametrize("name", ["Mine", "", " mine"])
def test_names_are_lower_case(name):
    with pytest.raises(ValueError, match="lower case"):
        register_norm(name)


def test_a_class_without_dim_is_refused():
    class Wide(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()

    with pytest.raises(ValueError, match="must take `dim`"):
        register_norm("wide")(Wide)


def test_options_behind_kwargs_are_those_of_the_base_class():
    @register_norm("passes_on")
    class PassesOn(vision.norms.Norm):
        def __init__(self, dim: int, *, power: float = 2.0, **options) -> None:
            super().__init__(dim, **options)

    assert norm_options("passes_on") == ("power", "affine", "channels_first")
    assert create_norm("passes_on", 4, channels_first=True).channels_first


def write(path: Path, name: str) -> Path:
    path.write_text(
        textwrap.dedent(f"""
        import torch
        from torch import nn
        from vision.norms import register_norm

        @register_norm("{name}")
        class MaxNorm(nn.Module):
            decayed = {{"scale"}}

            def __init__(self, dim, power=1.0):
                super().__init__()
                self.power = power
                self.scale = nn.Parameter(torch.ones(dim))
                self.offset = nn.Parameter(torch.zeros(dim))

            def forward(self, x):
                return self.scale * x / x.abs().amax(-1, keepdim=True) ** self.power + self.offset
        """)
    )
    return path


def test_a_users_file_is_loaded_by_path_once(tmp_path):
    path = write(tmp_path / "my_norms.py", "maxnorm")
    load_norm_module(str(path))
    first = get_norm("maxnorm")
    load_norm_module(str(path))
    assert get_norm("maxnorm") is first
    assert "maxnorm" in list_norms() and norm_options("maxnorm") == ("power",)
    norm = create_norm("maxnorm", 4, power=1.0)
    assert norm(torch.tensor([1.0, -4.0, 2.0, 0.0])).tolist() == [0.25, -1.0, 0.5, 0.0]
    assert norm.dim == 4


def test_two_files_of_one_file_name_are_two_modules(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        load_norm_module(str(write(tmp_path / folder / "norms.py", f"norm_{folder}")))
    assert get_norm("norm_a") is not get_norm("norm_b")


def test_a_users_module_is_loaded_by_dotted_name(tmp_path, monkeypatch):
    (tmp_path / "lab_of_norms").mkdir()
    write(tmp_path / "lab_of_norms" / "mine.py", "labnorm")
    monkeypatch.syspath_prepend(tmp_path)
    load_norm_module("lab_of_norms.mine")
    assert get_norm("labnorm").__module__ == "lab_of_norms.mine"


def test_missing_files_and_modules_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no norm file .*absent.py"):
        load_norm_module(str(tmp_path / "absent.py"))
    for name in ("absent_module_of_norms", "vision.absent.norms"):
        with pytest.raises(FileNotFoundError, match=f"no module '{name}'.*ending in .py"):
            load_norm_module(name)


def test_a_missing_dependency_of_a_users_module_is_not_taken_for_the_module(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        load_norm_module("needs_more")


def test_a_file_that_failed_can_be_mended_and_loaded_again(tmp_path):
    path = tmp_path / "half.py"
    path.write_text("x = 1")
    with pytest.raises(ValueError, match="registers no norm; decorate"):
        load_norm_module(str(path))
    load_norm_module(str(write(path, "mended")))
    assert "mended" in list_norms()
