"""What passes on two devices hand each other: every tensor as it was, whatever its shape and number format."""

import torch

from worker.engine.denoiser.split import carry_over

HERE, THERE = torch.device("cpu"), torch.device("cpu", 0)  # another device, as far as torch can tell
TENSORS = [
    torch.randn(1, 4, 8, 8).half(),
    torch.tensor(981),
    torch.randn(1, 3, 5).half().transpose(1, 2),
    torch.tensor([True, False, True]),
    torch.randn(3),
    torch.randn(7, 5)[:, ::2].bfloat16(),
    torch.tensor(3.5, dtype=torch.float64),
    torch.randn(3, dtype=torch.complex64),
    torch.zeros(0, 3),
]


def test_each_is_what_it_was() -> None:
    for carried, one in zip(carry_over(TENSORS, THERE), TENSORS, strict=True):
        assert carried.dtype == one.dtype and torch.equal(carried, one)
        assert one.numel() == 0 or carried.data_ptr() != one.data_ptr()


def test_what_is_there_already_stays_where_it_is() -> None:
    there = carry_over(TENSORS, HERE)
    assert [one.data_ptr() for one in there] == [one.data_ptr() for one in TENSORS]
