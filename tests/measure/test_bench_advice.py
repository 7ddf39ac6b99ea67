"""Advice appears where a record holds its reason, and only there."""

from __future__ import annotations

import pytest
from bench_records import BASE, device, record, step

from gpubp.measure.bench_advice import advice


def said(found, word):
    """The sentences with this word in them."""
    return [sentence for sentence in advice(found) if word in sentence]


def test_nothing_is_said_of_a_quiet_machine_where_size_changes_nothing():
    assert advice(record()) == []


# ---- batch, dtype, device


def batches(rates):
    found = record()
    found["devices"][0]["steps"] = [step(BASE, batch, "float32", rate) for batch, rate in rates.items()]
    return found


def test_a_larger_batch_that_pays():
    (sentence,) = said(batches({16: 1e4, 64: 1e5, 128: 2e5, 512: 3.1e5, 2048: 3.2e5}), "Batch")
    assert sentence.startswith("Batch 512 gives 3.1x the samples/s of batch 64 (784-512-512-10)")
    assert "at most 1.03x" in sentence


@pytest.mark.parametrize(
    "rates",
    [
        {64: 1e5, 512: 1.04e5},  # hardly faster
        {64: 1e5, 512: 0.5e5},  # slower
        {16: 1e5, 64: 1e5},  # nothing larger was measured
        {16: 1e4, 512: 1e5},  # nothing to compare with
    ],
)
def test_a_larger_batch_that_does_not_pay(rates):
    assert said(batches(rates), "Batch") == []


def test_the_best_batch_is_the_last_one():
    (sentence,) = said(batches({64: 1e5, 2048: 4e5}), "Batch 2048 gives 4.0x")
    assert "beyond" not in sentence


def test_a_batch_of_another_network_or_dtype_does_not_count():
    found = batches({64: 1e5})
    found["devices"][0]["steps"] += [
        step([784, 64, 64, 10], 512, "float32", 1e6),
        step(BASE, 512, "float64", 1e6),
    ]
    assert said(found, "Batch") == []


@pytest.mark.parametrize(("rate", "expected"), [(1e5 / 2.1, ["2.1x"]), (0.97e5, []), (1.2e5, [])])
def test_the_price_of_float64(rate, expected):
    found = record()
    found["devices"][0]["steps"][0] = step(BASE, 128, "float64", rate)
    sentences = said(found, "float64 costs")
    assert len(sentences) == len(expected)
    assert all(word in sentences[0] for word in expected)


def test_float64_that_was_not_measured():
    found = record()
    del found["devices"][0]["steps"][0]
    assert said(found, "float64") == []


def test_the_cpu_is_faster_where_both_were_measured():
    gpu = device("cuda:0", speed=10.0)
    at = next(k for k, one in enumerate(gpu["steps"]) if one["layers"][1] == 64)
    gpu["steps"][at] = step([784, 64, 64, 10], 128, "float32", 0.5e5)
    found = record(device(), gpu)
    assert said(found, "At this size the CPU") == [
        "At this size the CPU is faster than cuda:0: 784-64-64-10, batch 128, float32 (2.0x)."
    ]
    (sentence,) = said(found, "cuda:0 is faster")
    assert "7 of 8 sizes" in sentence
    assert "10.0x" in sentence


def test_the_gpu_is_faster_everywhere():
    found = record(device(), device("cuda:0", speed=10.0))
    assert said(found, "the CPU is faster") == []
    assert "at every size measured" in said(found, "cuda:0 is faster")[0]


def test_no_gpu_no_word_of_it():
    found = record(device(speed=0.1))
    assert said(found, "GPU") == said(found, "cuda") == []
    only = record(device("cuda:0"))
    assert said(only, "CPU is faster") == said(only, "faster than the CPU") == []


def test_devices_that_are_about_equal():
    found = record(device(), device("cuda:0", speed=1.03))
    assert said(found, "faster") == []


def test_sizes_that_only_one_of_them_has_made_are_not_compared():
    cpu, gpu = device(), device("cuda:0", speed=0.1)
    cpu["steps"] = cpu["steps"][:1]
    (sentence,) = said(record(cpu, gpu), "At this size")
    assert sentence.count("batch") == 1


# ---- the machine's settings


def haswell(with_=2.5e11, without=4.7e11, **environment):
    found = record()
    found["machine"]["environment"] = environment or {"OPENBLAS_CORETYPE": "Haswell"}
    found["machine"]["blas"]["core"] = "Haswell"
    found["openblas"] = {"with": with_, "without": without}
    return found


def test_openblas_that_was_told_to_use_narrow_kernels():
    (sentence,) = said(haswell(), "OPENBLAS")
    for words in (
        "OPENBLAS_CORETYPE=Haswell is set",
        "AVX-512",
        "256-bit",
        "470 instead of 250",
        "Unset it.",
    ):
        assert words in sentence


def test_both_settings_are_named():
    (sentence,) = said(haswell(OPENBLAS_CORETYPE="Haswell", OPENBLAS_L2_SIZE="512"), "OPENBLAS")
    assert "OPENBLAS_CORETYPE=Haswell and OPENBLAS_L2_SIZE=512 are set" in sentence
    assert "Unset them." in sentence


def test_without_the_comparison_nothing_is_claimed_of_the_gain():
    found = haswell()
    found["openblas"] = None
    (sentence,) = said(found, "OPENBLAS")
    assert "GFLOP/s" not in sentence


def test_a_setting_that_costs_nothing_is_left_alone():
    assert said(haswell(without=2.5e11), "OPENBLAS") == []


def test_the_right_kernels_and_no_comparison():
    found = record()
    found["machine"]["environment"] = {"OPENBLAS_CORETYPE": "SkylakeX"}
    assert said(found, "OPENBLAS") == []


def test_narrow_kernels_on_a_cpu_without_avx512_or_without_a_setting():
    found = haswell()
    found["openblas"], found["machine"]["features"] = None, ["AVX2"]
    assert said(found, "OPENBLAS") == []
    found = haswell()
    found["openblas"], found["machine"]["environment"] = None, {}
    assert said(found, "OPENBLAS") == []


@pytest.mark.parametrize("name", ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"])
def test_threads_that_the_environment_keeps_few(name):
    found = record()
    found["machine"]["environment"] = {name: "3"}
    (sentence,) = said(found, name)
    assert f"{name}=3" in sentence
    assert "4 CPUs" in sentence


@pytest.mark.parametrize("value", ["4", "8", "0", "many", "-1"])
def test_threads_that_are_not_few(value):
    found = record()
    found["machine"]["environment"] = {"OPENBLAS_NUM_THREADS": value}
    assert said(found, "THREADS") == []


def test_threads_of_the_cpu_do_not_matter_to_a_gpu_alone():
    found = record(device("cuda:0"))
    found["machine"]["environment"] = {"OPENBLAS_NUM_THREADS": "1"}
    assert said(found, "THREADS") == []


# ---- a machine that was not idle


@pytest.mark.parametrize(
    ("noise", "others", "words"),
    [
        (0.4, 0.0, ["40 %"]),
        (0.01, 0.9, ["0.9 CPUs"]),
        (0.4, 0.9, ["40 %", "0.9 CPUs"]),
        (0.3, None, ["30 %"]),
    ],
)
def test_a_busy_machine(noise, others, words):
    found = record()
    found["devices"][0]["noise"], found["others_busy"] = noise, others
    first = advice(found)[0]
    assert "not idle" in first
    assert all(word in first for word in words)


@pytest.mark.parametrize("others", [0.1, None])
def test_a_machine_that_was_idle(others):
    found = record()
    found["devices"][0]["noise"], found["others_busy"] = 0.05, others
    assert said(found, "not idle") == []
