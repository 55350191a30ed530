import pytest
from kernel_contract import check_kernel

from mandeldask.errors import ConfigError
from mandeldask.kernels import KERNELS
from mandeldask.view import View


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_keeps_the_contract(name):
    check_kernel(KERNELS[name])


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("max_iter", [0, -1, 2**31, 1.5, "100", True, None])
def test_a_bad_max_iter_is_refused_before_any_work(name, max_iter):
    with pytest.raises(ConfigError, match="max_iter"):
        KERNELS[name](max_iter)


@pytest.mark.parametrize("name", KERNELS)
def test_a_view_too_deep_for_binary64_is_refused(name):
    view = View.around(("-0.75", "0.1"), "1e-14", (100, 100))
    with pytest.raises(ConfigError, match="too deep for binary64"):
        KERNELS[name](100, view=view)


@pytest.mark.parametrize("name", KERNELS)
def test_unknown_fields_are_refused(name):
    with pytest.raises(ConfigError, match="fields"):
        KERNELS[name](100, fields=("escape_time", "colour"))
