import pytest

from vision.datasets.sampler import Draw, EvalSampler, GlobalBatchSampler, split_batch

LENGTH, TOTAL = 103, 24  # 4 full batches, 7 images left over


def stream(done: int = 0, **split: int) -> list[list[Draw]]:
    return list(GlobalBatchSampler(LENGTH, TOTAL, seed=3, batches_done=lambda: done, **split))


def global_batches(epoch: int, world_size: int, accumulate: int) -> list[set[Draw]]:
    ranks = [
        stream(epoch * 4 * accumulate, rank=rank, world_size=world_size, accumulate=accumulate)
        for rank in range(world_size)
    ]
    batches = []
    for step in range(4):
        rows = [r[step * accumulate + m] for r in ranks for m in range(accumulate)]
        draws = [draw for row in rows for draw in row]
        assert len(draws) == TOTAL
        assert len({len(row) for row in rows}) == 1
        batches.append(set(draws))
    return batches


@pytest.mark.parametrize(
    ("world_size", "accumulate"), [(1, 2), (1, 24), (2, 1), (2, 3), (3, 4), (4, 2), (8, 3)]
)
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_each_optimizer_batch_is_the_same_for_every_split(
    world_size: int, accumulate: int, epoch: int
) -> None:
    assert global_batches(epoch, world_size, accumulate) == global_batches(epoch, 1, 1)


def test_an_epoch_draws_no_image_twice_and_leaves_out_the_incomplete_batch() -> None:
    draws = [draw for batch in stream() for draw in batch]
    assert len(draws) == len(set(draws)) == 96
    assert {draw.epoch for draw in draws} == {0}
    assert {draw.index for draw in draws} <= set(range(LENGTH))


def test_epochs_and_seeds_have_their_own_order() -> None:
    def order(seed: int, done: int) -> list[int]:
        sampler = GlobalBatchSampler(LENGTH, TOTAL, seed=seed, batches_done=lambda: done)
        return [draw.index for batch in sampler for draw in batch]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 4)
    assert order(0, 0) != order(1, 0)


@pytest.mark.parametrize(("rank", "world_size", "accumulate"), [(0, 1, 1), (1, 2, 3)])
def test_resuming_anywhere_continues_the_uninterrupted_stream(
    rank: int, world_size: int, accumulate: int
) -> None:
    split = {"rank": rank, "world_size": world_size, "accumulate": accumulate}
    per_epoch = 4 * accumulate
    whole = [batch for epoch in range(3) for batch in stream(epoch * per_epoch, **split)]
    assert len(whole) == 3 * per_epoch
    for done in range(3 * per_epoch):
        rest_of_epoch = whole[done : (done // per_epoch + 1) * per_epoch]
        assert stream(done, **split) == rest_of_epoch


def test_progress_is_read_whenever_the_sampler_is_iterated() -> None:
    done = 0
    sampler = GlobalBatchSampler(LENGTH, TOTAL, seed=3, batches_done=lambda: done)
    seen = []
    for _ in range(2):
        for batch in sampler:
            seen.append(batch)
            done += 1
    assert seen == stream(0) + stream(4)
    assert len(sampler) == 4


def test_a_batch_larger_than_the_data_set_is_refused_with_the_fix() -> None:
    with pytest.raises(
        ValueError, match=r"trainer.batch_size_total = 24: .*only 23 images.*set .* to 23 or less"
    ):
        GlobalBatchSampler(23, 24, seed=0, batches_done=lambda: 0)
    with pytest.raises(ValueError, match=r"trainer.batch_size_total = 24: .*5 devices"):
        GlobalBatchSampler(99, 24, seed=0, batches_done=lambda: 0, world_size=5)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("length", [0, 1, 7, 12])
def test_evaluation_sees_each_image_once_over_all_ranks(length: int, world_size: int) -> None:
    ranks = [EvalSampler(length, rank, world_size) for rank in range(world_size)]
    draws = [draw for rank in ranks for draw in rank]
    assert sorted(draws) == [Draw(0, index) for index in range(length)]
    assert [len(rank) for rank in ranks] == [len(list(rank)) for rank in ranks]


@pytest.mark.parametrize(
    ("total", "device", "world_size", "multiple", "expected"),
    [
        (4096, None, 1, 1, (4096, 1)),
        (4096, 256, 1, 1, (256, 16)),
        (4096, 256, 8, 1, (256, 2)),
        (100, 48, 1, 1, (25, 4)),
        (100, 48, 1, 2, (20, 5)),
        (96, 1000, 2, 1, (48, 1)),
        (7, 2, 1, 1, (1, 7)),
    ],
)
def test_accumulation_is_the_smallest_that_fits(
    total: int, device: int | None, world_size: int, multiple: int, expected: tuple[int, int]
) -> None:
    micro, accumulate = split_batch(total, device, world_size, multiple)
    assert (micro, accumulate) == expected
    assert micro * accumulate * world_size == total


def test_impossible_splits_name_key_and_nearest_values() -> None:
    with pytest.raises(ValueError, match=r"trainer.batch_size_total = 100: .*nearest: 99 or 102"):
        split_batch(100, None, 3)
    with pytest.raises(ValueError, match=r"trainer.batch_size_total = 6: .*nearest: 4 or 8"):
        split_batch(6, None, 2, multiple_of=2)
    with pytest.raises(ValueError, match=r"trainer.batch_size_device = 1: .*to 2 or more"):
        split_batch(8, 1, 1, multiple_of=2)


def test_the_last_epoch_of_a_run_of_steps_is_cut() -> None:
    def epoch(done: int) -> tuple[int, list[list[Draw]]]:
        sampler = GlobalBatchSampler(
            LENGTH, TOTAL, seed=3, batches_done=lambda: done, accumulate=3, max_steps=6
        )
        return len(sampler), list(sampler)

    assert [epoch(done)[0] for done in (0, 11, 12, 17)] == [12, 12, 6, 6]
    assert epoch(12)[1] == stream(12, accumulate=3)[:6]
    assert epoch(15)[1] == stream(15, accumulate=3)[:3]  # resumed within it
