"""What is seen while training: on terminals of any width, in pipes and files, and where nobody looks any more."""

from __future__ import annotations

import io
import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

from gpubp import Network, Trainer
from gpubp.backend import Memory
from gpubp.errors import DeviceMemoryError, NumericalError
from gpubp.optimizers import SGD
from gpubp.training import memory, numbers, peak, progress, summary
from gpubp.training.history import History
from gpubp.training.screen import Screen, first_that_fits

BARS = "━─#"


class Terminal(io.StringIO):
    """A terminal of some columns that keeps what stands on it; a line that reaches the last column wraps."""

    def __init__(self, columns, encoding="utf-8"):
        super().__init__()
        self.columns, self._encoding, self.rows, self.row, self.column, self.all = (
            columns,
            encoding,
            [""],
            0,
            0,
            "",
        )

    @property
    def encoding(self):
        return self._encoding

    def isatty(self):
        return True

    def write(self, text):
        text.encode(self._encoding)
        self.all += text
        for sign in re.findall(r"\033\[\d*[A-Za-z]|.|\n", text):
            if sign == "\n":
                self.row, self.column = self.row + 1, 0
            elif sign == "\r":
                self.column = 0
            elif sign.endswith("A") and len(sign) > 1:
                self.row = max(0, self.row - int(sign[2:-1]))
            elif sign == "\033[J":
                self.rows[self.row] = self.rows[self.row][: self.column]
                del self.rows[self.row + 1 :]
            elif len(sign) == 1:
                self._put(sign)
            self.rows += [""] * (self.row + 1 - len(self.rows))
        return len(text)

    def _put(self, sign):
        if self.column == self.columns:
            self.row, self.column = self.row + 1, 0
            self.rows += [""] * (self.row + 1 - len(self.rows))
        line = self.rows[self.row]
        self.rows[self.row] = f"{line[: self.column]:<{self.column}}{sign}{line[self.column + 1 :]}"
        self.column += 1


@pytest.fixture
def terminal(monkeypatch):
    """Makes standard output a terminal of so many columns."""

    def make(columns, encoding="utf-8"):
        made = Terminal(columns, encoding)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setattr("sys.stdout", made)
        return made

    return make


@pytest.fixture
def often(monkeypatch):
    """Every step redraws the bar, and every epoch keeps its line."""
    monkeypatch.setattr(progress, "_REFRESH", -1.0)
    monkeypatch.setattr(progress, "_APART", -1.0)


@pytest.fixture
def slow(monkeypatch):
    """A clock that only the test moves on."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def data(n=64, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 4)), rng.integers(0, 3, n)


def trainer_of(**options):
    net = Network([4, 8, 3], "tanh", dtype="float64", device="cpu", seed=0)
    return Trainer(net, "softmax_cross_entropy", SGD(0.1), seed=7, **options)


def fit(trainer=None, epochs=3, **options):
    trainer = trainer or trainer_of()
    trainer.fit(
        *data(), epochs=epochs, batch_size=16, validation=data(20, 1), **{"progress": True, **options}
    )
    return trainer


# ---- lines -----------------------------------------------------------------------------------------------


def test_the_library_says_nothing_by_itself(capfd):
    fit(progress=False, early_stopping=1)
    assert capfd.readouterr() == ("", "")


def test_a_pipe_gets_a_line_for_each_epoch_with_everything(capsys, known):
    trainer = trainer_of()
    known(trainer, 1e15)
    history = fit(trainer).history
    lines = capsys.readouterr().out.splitlines()
    for row, line in zip(history, lines[:3], strict=True):
        scores = re.escape(
            f"epoch {row['epoch']} of 3  loss {row['loss']:.4f}  val_loss {row['val_loss']:.4f}  "
            f"val_accuracy {row['val_accuracy']:.4f}  "
        )
        speed = (
            r"[\d.]+[kMG]? samples/s  [\d.e-]+ TFLOP/s \(0 % of ceiling\)  memory [\d.]+ [MG]iB  \d+s left"
        )
        assert re.fullmatch(scores + speed, line), line
    assert "\033" not in "".join(lines)
    assert not set(BARS) & set("".join(lines[:3]))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.parametrize("columns", [1, 8, 20, 30, 40, 60, 80, 200])
def test_a_terminal_of_any_width_has_a_bar_that_never_wraps_and_is_gone_at_the_end(
    terminal, often, columns, encoding
):
    screen = terminal(columns, encoding)
    drawn = []
    move = Screen.move

    def watched(self, lines):
        move(self, lines)
        drawn.append([row for row in screen.rows if row][-2:])
        assert len(lines) == 2
        assert all(len(re.sub(r"\033\[\d+m", "", line)) < max(columns, 2) for line in lines)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Screen, "move", watched)
        fit(epochs=12)
    assert drawn
    if columns >= 30:
        sign = "━" if encoding == "utf-8" else "#"
        assert sign in drawn[-1][0]
        assert re.match(r"epoch 12/12 ", drawn[-1][0])
        assert re.match(r"loss \d\.\d{4}", drawn[-1][1])
    left = "\n".join(screen.rows)
    assert not set(BARS) & set(left)
    assert "best" in left.replace("\n", "")
    if columns >= 20:
        lines = [row for row in screen.rows if re.match(r"(epoch )?[ \d]\d/12", row)]
        assert len(lines) == 12
        assert all(len(line) < columns for line in lines)


def test_a_bar_of_a_window_that_became_narrower_is_taken_away_whole(terminal, monkeypatch):
    screen = terminal(80)
    shown = Screen()
    shown.say("above")
    shown.move(["x" * 79, "y" * 50])
    monkeypatch.setenv("COLUMNS", "40")
    screen.columns = 40
    screen.rows, screen.row = (
        ["above", "x" * 40, "x" * 39, "y" * 40, "y" * 10],
        4,
    )  # as terminals wrap them again
    shown.say("below")
    assert [row for row in screen.rows if row] == ["above", "below"]


def test_the_bar_shows_the_share_of_the_whole_run_and_the_time_that_is_left(terminal, slow):
    screen = terminal(80)
    trainer = trainer_of()
    shown = progress.Progress(trainer, epochs=4, examples=100)
    slow.now += 10
    shown.steps(50)
    bar = screen.rows[0]
    assert bar.startswith("epoch 1/4 ")
    assert bar.count("━") == round(0.125 * (bar.count("━") + bar.count("─")))
    assert bar.endswith(" 12%  1m10s left")
    assert "5 samples/s" in screen.rows[1]


def test_lines_above_a_bar_are_a_while_apart_and_the_last_is_there(terminal, slow):
    screen = terminal(80)
    shown = progress.Progress(trainer_of(), epochs=50, examples=16)
    for epoch in range(1, 51):
        slow.now += 0.08
        shown.steps(16)
        shown.epoch({"epoch": epoch, "loss": 1.0, "samples_per_s": 10.0})
    said = [int(row.split()[1].split("/")[0]) for row in screen.rows if "loss 1.0000  10" in row]
    assert said == [*range(1, 50, 4), 50]


@pytest.mark.parametrize(("setting", "coloured"), [(None, True), ("", True), ("1", False)])
def test_no_color_is_obeyed(terminal, often, monkeypatch, setting, coloured):
    screen = terminal(80)
    if setting is not None:
        monkeypatch.setenv("NO_COLOR", setting)
    fit()
    assert bool(re.search(r"\033\[\d+m", screen.all)) == coloured


def test_a_dumb_terminal_gets_plain_lines(terminal, often, monkeypatch):
    screen = terminal(80)
    monkeypatch.setenv("TERM", "dumb")
    fit()
    assert "\033" not in screen.all
    assert "epoch 1 of 3" in screen.all


def test_what_callbacks_print_stands_alone(terminal, often):
    screen = terminal(80)
    fit(callbacks=[lambda trainer, row: print(f"mine {row['epoch']}")])
    assert [row for row in screen.rows if "mine" in row] == ["mine 1", "mine 2", "mine 3"]


@pytest.mark.parametrize("columns", [20, 80])
def test_no_bar_is_left_behind_by_an_error(terminal, often, columns):
    screen = terminal(columns)
    x, y = data()
    net = Network([4, 8, 3], "relu", dtype="float64", device="cpu", seed=0)
    trainer = Trainer(net, "mse", SGD(1e200), seed=7)
    with pytest.raises(NumericalError):
        trainer.fit(x, np.eye(3)[y], epochs=5, batch_size=16, progress=True)
    assert set(BARS) & set(screen.all)
    assert not set(BARS) & set("".join(screen.rows))


def test_a_gpu_is_not_asked_for_the_loss_while_it_trains(terminal, slow):
    """The stand-in has no to_host: the loss is that of the epoch before, the memory that of the device."""
    screen, trainer = terminal(80), trainer_of()
    shown = progress.Progress(trainer, epochs=4, examples=100)
    trainer.net.backend = SimpleNamespace(
        asynchronous=True, name="cuda:0", memory=lambda: Memory(3 << 30, 5 << 30)
    )
    slow.now += 10
    shown.steps(50)
    assert screen.rows[1].startswith("5 samples/s")
    assert screen.rows[1].endswith("memory 3.0 GiB on cuda:0")
    shown.epoch({"epoch": 1, "loss": 0.25, "samples_per_s": 5.0})
    slow.now += 5
    shown.steps(50)
    assert screen.rows[2].startswith("loss 0.2500  7 samples/s")
    trainer.history, trainer.epoch = History(rows(0.5)), 1
    shown.finish()
    assert any(re.search(r"^memory .*, 5\.0 GiB at most on cuda:0$", row) for row in screen.rows)


# ---- output that is gone ---------------------------------------------------------------------------------


class Gone(io.StringIO):
    """Breaks when it is written to for the second time."""

    def __init__(self, error):
        super().__init__()
        self.error, self.writes = error, 0

    def write(self, text):
        self.writes += 1
        if self.writes > 1:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize(
    "error", [BrokenPipeError(), OSError(5, "Input/output error"), ValueError("I/O operation on closed file")]
)
def test_training_outlives_its_reader(monkeypatch, often, error, tty):
    stream = Gone(error)
    stream.isatty = lambda: tty
    monkeypatch.setattr("sys.stdout", stream)
    lost = []
    trainer = fit(epochs=4, callbacks=[lambda trainer, row: lost.append(trainer.display.lost)])
    assert len(trainer.history) == 4
    assert stream.writes == 2, "it falls silent"
    assert lost[-1] is (error if isinstance(error, OSError) else None)
    assert trainer.display is None


def test_training_needs_no_standard_output(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    assert len(fit().history) == 3
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stdout", closed)
    assert len(fit().history) == 3


# ---- the ceiling -----------------------------------------------------------------------------------------


@pytest.fixture
def known(monkeypatch, tmp_path):
    """Puts a ceiling into the cache of the test, as another run would have left it."""
    monkeypatch.setattr(peak, "_FILE", str(tmp_path / "ceilings.json"))

    def remember(trainer, rate):
        return peak.remember_peak(trainer.net.backend, trainer.net.dtype, rate)

    return remember


def test_a_ceiling_is_kept_for_each_device_and_dtype_and_never_lowered(known):
    a, b = trainer_of(), trainer_of()
    b.net.dtype = np.dtype("float32")
    assert peak.known_peak(a) is None
    known(a, 2e11)
    known(a, 1e11)
    assert peak.known_peak(a).flops_per_s == 2e11
    assert peak.known_peak(b) is None
    known(b, 5e11)
    assert peak.known_peak(a).flops_per_s == 2e11
    assert peak.known_peak(b).share(2.5e11) == 0.5
    assert peak.known_peak(b).share(6e11) is None, "it was measured while others used the machine"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "[" * 10**5, '{"k": {"flops_per_s": -1, "day": "x"}}']
)
def test_a_damaged_file_of_ceilings_is_as_none(known, content, tmp_path):
    trainer = trainer_of()
    key = peak._key(trainer.net.backend, trainer.net.dtype)
    (tmp_path / "ceilings.json").write_text(content.replace('"k"', json.dumps(key)))
    assert peak.known_peak(trainer) is None
    known(trainer, 1e9)
    assert peak.known_peak(trainer).flops_per_s == 1e9


def test_the_file_of_ceilings_stays_small(known, tmp_path):
    trainer = trainer_of()
    (tmp_path / "ceilings.json").write_text(json.dumps({str(k): {} for k in range(1000)}))
    known(trainer, 1e9)
    assert len(json.loads((tmp_path / "ceilings.json").read_text())) == peak._MOST
    assert peak.known_peak(trainer).flops_per_s == 1e9


def test_nothing_is_measured_before_or_while_training_nor_after_a_short_run(known, monkeypatch, capsys):
    def never(*_):
        raise AssertionError("measured")

    monkeypatch.setattr(summary, "peak_rate", never)
    fit()
    assert "ceiling" not in capsys.readouterr().out
    assert trainer_of().display is None


def test_after_a_long_run_the_ceiling_is_measured_once_and_named(known, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(summary, "_WORTHWHILE", 0.0)
    monkeypatch.setattr(summary, "peak_rate", lambda ops, dtype: calls.append(dtype) or 1e12)
    first, second = fit(), fit()
    lines = capsys.readouterr().out
    assert calls == [np.dtype("float64")]
    assert (
        len(
            re.findall(
                r"^ceiling .* % of 1\.000 TFLOP/s, the fastest product measured here, \d{4}-", lines, re.M
            )
        )
        == 2
    )
    assert lines.count("% of ceiling") == 3, "the second run knows it from the beginning"
    assert peak.known_peak(first) == peak.known_peak(second)


def test_a_ceiling_that_is_beyond_belief_is_measured_again(known, monkeypatch, capsys):
    monkeypatch.setattr(summary, "_WORTHWHILE", 0.0)
    monkeypatch.setattr(summary, "peak_rate", lambda ops, dtype: 1e12)
    trainer = trainer_of()
    known(trainer, 1.0)
    fit(trainer)
    out = capsys.readouterr().out
    assert "% of ceiling" not in out
    assert "% of 1.000 TFLOP/s" in out


@pytest.mark.parametrize("stopped", ["interrupted", "finished"])
def test_the_ceiling_is_left_out_after_ctrl_c_or_where_products_do_not_fit(known, monkeypatch, stopped):
    def full(ops, dtype):
        assert stopped == "finished", "Ctrl-C waits for nothing"
        raise DeviceMemoryError("", 1, 0, 0)

    monkeypatch.setattr(summary, "peak_rate", full)
    trainer = trainer_of()
    trainer.history.stopped = stopped
    assert summary.measured(trainer, 1e6) is None


# ---- the summary -----------------------------------------------------------------------------------------


def rows(*losses):
    return [
        {"epoch": k + 1, "loss": 0.5, "val_loss": loss, "val_r2": 0.25, "samples_per_s": rate}
        for k, (loss, rate) in enumerate(zip(losses, (100.0, 300.0, 100.0), strict=False))
    ]


def summary_of(history, made=None, stopped="finished", peak=None):
    trainer = trainer_of()
    trainer.history = History(history)
    trainer.history.stopped = stopped
    trainer.epoch = len(history)
    return dict(
        re.split(r"\s+", line, maxsplit=1)
        for line in summary.Summary(trainer, made or history, 9, 65.4, peak).lines()
    )


def test_the_summary_names_the_best_epoch_and_the_last():
    lines = summary_of(rows(0.3, 0.1, 0.2))
    assert lines["best"] == "epoch 2: val_loss 0.1000, val_r2 0.2500"
    assert lines["final"] == "epoch 3: loss 0.5000, val_loss 0.2000, val_r2 0.2500"
    assert lines["memory"].endswith("at most in this process")
    assert "stopped" not in lines


def test_the_mean_rate_is_that_of_all_examples():
    made = rows(0.3, 0.1, 0.2)  # 3 units of work in 1/100 + 1/300 + 1/100
    reached = 3 / (2 / 100 + 1 / 300) * trainer_of().flops_per_sample
    found = summary_of(made, peak=peak.Peak(4 * reached, "2026-01-02"))
    assert found["time"].startswith("1m05s, mean 129 samples/s, ")
    assert found["ceiling"].startswith("25 % of ")
    assert found["ceiling"].endswith("the fastest product measured here, 2026-01-02")
    assert "ceiling" not in summary_of(made, peak=peak.Peak(reached / 2, "2026-01-02"))


def test_without_validation_and_with_losses_that_are_no_numbers():
    made = [{"epoch": 1, "loss": math.nan, "samples_per_s": 1.0}]
    assert summary_of(made)["best"] == "no epoch has a loss that is a number"
    made = [{**made[0], "loss": 0.25}, {**made[0], "epoch": 2}]
    assert summary_of(made)["best"] == "epoch 1: loss 0.2500"


@pytest.mark.parametrize(
    ("stopped", "why"),
    [("early stopping", "early stopping"), ("callback", "a callback asked to stop"), ("interrupted",) * 2],
)
def test_the_summary_says_why_training_ended(stopped, why):
    assert summary_of(rows(1.0, 2.0), stopped=stopped)["stopped"] == f"after epoch 2 of 9: {why}"


def test_a_fit_that_was_interrupted_in_its_first_epoch_has_no_summary(capsys):
    trainer = trainer_of()
    progress.Progress(trainer, 3, 10).finish()
    assert capsys.readouterr().out == ""


def test_the_summary_is_of_this_fit_and_its_best_of_all(capsys):
    trainer = fit(epochs=2)
    capsys.readouterr()
    trainer.history.rows[0]["val_loss"] = -1.0
    fit(trainer, epochs=1)
    out = capsys.readouterr().out
    assert "final     epoch 3: " in out
    assert "best      epoch 1: val_loss -1.0000" in out


def test_the_summary_says_that_the_best_weights_are_kept(capsys):
    fit(early_stopping=5)
    assert re.search(r"^best      epoch \d: .*; its weights are kept$", capsys.readouterr().out, re.MULTILINE)


# ---- numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (numbers.value(0.123456), "0.1235"),
        (numbers.value(0), "0.0000"),
        (numbers.value(1.2345e-6), "1.234e-06"),
        (numbers.value(-2.5e8), "-2.500e+08"),
        (numbers.value(math.nan), "nan"),
        (numbers.value(math.inf), "inf"),
        (numbers.rate(999.4, "x"), "999 x"),
        (numbers.rate(48_200, "x"), "48.2k x"),
        (numbers.rate(1.5e9, "x"), "1.5G x"),
        (numbers.tflops(0.1234), "0.123 TFLOP/s"),
        (numbers.tflops(0.000123), "0.00012 TFLOP/s"),
        (numbers.size(312 * 2**20), "312 MiB"),
        (numbers.size(5 * 2**30), "5.0 GiB"),
        (numbers.duration(59.4), "59s"),
        (numbers.duration(59.6), "1m00s"),
        (numbers.duration(7385), "2h03m"),
    ],
)
def test_numbers_are_short_and_have_units(text, expected):
    assert text == expected


def test_memory_is_that_of_the_process():
    held, most = memory.resident(), memory.most_resident()
    if held is None or most is None:
        pytest.skip("this system does not say")
    assert 2**20 < held < 2**40
    block = np.ones(2**24)
    assert memory.resident() >= held + block.nbytes // 2
    assert memory.most_resident() >= memory.resident() // 2 >= most // 8


def test_the_first_line_that_fits_is_taken_and_the_last_is_cut():
    assert first_that_fits(["12345", "123", "1"], 4) == "123"
    assert first_that_fits(["12345", "123"], 2) == "12"
