#!/usr/bin/env bash
# Checks and measures gpubp on one NVIDIA GPU in less than 9 minutes, and writes what it found into one JSON and one table.
#
#   bench/gpu_check.sh [PART ...]     parts: probe warm gputests tests names sanitizer agreement selftest launches streaming
#                                     mnist compare; all of them where none is named; then they share the time as below
#   PYTHON=python3                    the interpreter; it needs numpy, numba, cupy and numba-cuda; for the parts that say so
#                                     pytest with hypothesis (faster with pytest-xdist), torch, jax, scikit-learn and
#                                     compute-sanitizer, without which they are skipped or shortened
#   WHEELS=wheels                     a folder of wheels that are installed beside it: nvmath-python, where it is missing
#   GPUBP_DATA_DIR=DIR                mnist/ as idx.gz files, for the part mnist
#   GPU_CHECK_OUT=bench/results       where gpu-NAME-DATE.json and .md go
#   GPU_CHECK_SECONDS=520             all parts together; each has a limit of its own besides
#   GPUBP_CACHE_DIR                   where compiled kernels and measured choices are kept; a folder that is thrown away
#
# Nothing is fetched. Needs bash, coreutils' timeout, nvidia-smi, git (for the commit only).
# Exit codes: 0 all parts passed or were skipped, 1 some failed, 2 wrong arguments, 3 no GPU (nothing is written).
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
root=$PWD
all=(probe warm gputests tests names sanitizer agreement selftest launches streaming mnist compare)
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=("${all[@]}")
python=${PYTHON:-python3}
total=${GPU_CHECK_SECONDS:-520}
out=${GPU_CHECK_OUT:-$root/bench/results}
alone=false
[ ${#parts[@]} -gt 1 ] || alone=true

for part in "${parts[@]}"; do
    case " ${all[*]} " in
        *" $part "*) ;;
        *)
            echo "gpu_check: expected parts among ${all[*]}; got $part" >&2
            exit 2
            ;;
    esac
done

no_gpu() {
    echo "gpu_check: no GPU to check: $1" >&2
    exit 3
}

command -v nvidia-smi >/dev/null || no_gpu "nvidia-smi is not found, so there is no NVIDIA driver"
nvidia-smi -L 2>/dev/null | grep -q '^GPU' || no_gpu "nvidia-smi lists none"
"$python" -c 'import cupy' 2>/dev/null || no_gpu "$python cannot import cupy; set PYTHON, or install gpubp[cuda13]"
"$python" -c 'import cupy, sys; sys.exit(not cupy.cuda.is_available())' || no_gpu "CuPy finds no usable GPU"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONUNBUFFERED=1 PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export GPUBP_CACHE_DIR="${GPUBP_CACHE_DIR:-$work/cache}" TORCHINDUCTOR_CACHE_DIR="$work/inductor" TRITON_CACHE_DIR="$work/triton"
export XLA_PYTHON_CLIENT_PREALLOCATE=false

wheels=${WHEELS:-wheels}
if compgen -G "$wheels/*.whl" >/dev/null; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --target "$work/site" "$wheels"/*.whl || exit 1
    export PYTHONPATH="$work/site:$PYTHONPATH"
fi

wanted() { case " ${parts[*]} " in *" $1 "*) ;; *) return 1 ;; esac; }

finish() { # name status seconds
    printf '%s %s\n' "$2" "$3" >"$work/$1.status"
    printf '== [%4ds] %-22s %s after %ss\n' "$SECONDS" "$1" "$2" "$3"
}

# A part: its name, its limit in seconds, its command. Its output goes to a log, its end to a status file.
part() {
    local name=$1 limit=$2 left=$((total - SECONDS)) start=$SECONDS code=0
    shift 2
    [ "$left" -ge "$limit" ] || limit=$left
    if [ "$limit" -lt 5 ]; then
        finish "$name" skipped 0
        echo "no time was left" >"$work/$name.log"
        return
    fi
    printf '== [%4ds] %-22s begins, at most %ss\n' "$start" "$name" "$limit"
    timeout --kill-after=5 "$limit" "$@" >"$work/$name.log" 2>&1 </dev/null || code=$?
    case $code in
        0) finish "$name" passed $((SECONDS - start)) ;;
        124 | 137) finish "$name" timeout $((SECONDS - start)) ;;
        *) finish "$name" failed $((SECONDS - start)) ;;
    esac
}

skip() { # name reason
    echo "$2" >"$work/$1.log"
    finish "$1" skipped 0
}

find_sanitizer() {
    local toolkit place
    command -v compute-sanitizer && return
    for toolkit in "${CUDA_HOME:-/usr/local/cuda}" /usr/local/cuda*/; do
        for place in "$toolkit/bin/compute-sanitizer" "$toolkit/compute-sanitizer/compute-sanitizer"; do
            [ -x "$place" ] && echo "$place" && return
        done
    done
    "$python" - <<'FIND'
import pathlib, sys
for folder in map(pathlib.Path, sys.path):
    for place in sorted(folder.glob("nvidia/**/compute-sanitizer")):
        if place.is_file():
            print(place)
            raise SystemExit
raise SystemExit(1)
FIND
}

sanitizer() {
    local tool path
    path=$(find_sanitizer)
    for tool in memcheck racecheck initcheck; do
        if [ -z "$path" ]; then
            skip "sanitizer-$tool" "compute-sanitizer was found neither on PATH, nor in a CUDA toolkit, nor in a wheel"
        else
            part "sanitizer-$tool" "$1" "$path" --tool "$tool" --error-exitcode 9 --target-processes all \
                "$python" bench/gpu/sanitize.py &
        fi
    done
}

tests() { # name limit arguments
    local name=$1 limit=$2 many=()
    shift 2
    if ! "$python" -c 'import pytest, hypothesis' 2>/dev/null; then
        skip "$name" "$python has no pytest and hypothesis"
        return
    fi
    if "$python" -c 'import xdist' 2>/dev/null; then many=(-n 6); fi
    part "$name" "$limit" "$python" -m pytest -rs -p no:cacheprovider "${many[@]}" "$@" &
}

# What is not timed runs together; what is timed runs alone.
wanted probe && part probe 90 "$python" -c 'import gpubp
print(gpubp.get_backend("cuda").description)
print(*gpubp.devices(), sep="\n")'
wanted warm && part warm 100 "$python" bench/gpu/warm.py --processes 14
wanted gputests && tests gputests 150 -m gpu tests
# the others stay on the CPU, in the processes that they start too; what .ci/run proves in minutes is left to it
wanted tests && CUDA_VISIBLE_DEVICES='' tests tests 150 -m "not gpu and not slow" tests --ignore tests/cuda \
    --ignore tests/kernels/test_cuda_twins.py --ignore tests/measure/test_selftest_standin.py
wanted names && tests names 60 tests/cuda/test_cupy_names.py tests/cuda/test_nvmath.py
wanted sanitizer && sanitizer 150
wanted agreement && part agreement 150 "$python" bench/gpu/agreement.py --processes 6 --out "$work/agreement.json" &
wait
wanted selftest && part selftest 70 "$python" -m gpubp selftest --device cuda --json "$work/selftest.json"
if wanted launches; then
    part launches 40 "$python" bench/gpu/launches.py --out "$work/launches.json"
    for script in bench/gpu_*.py; do
        [ -f "$script" ] && part "$(basename "$script" .py)" 30 "$python" "$script"
    done
fi
wanted streaming && part streaming 30 "$python" bench/gpu/streaming.py --out "$work/streaming.json"
if wanted mnist; then
    if [ -d "${GPUBP_DATA_DIR:-}/mnist" ]; then
        part mnist 40 "$python" -m gpubp train mnist --hidden 512,512 --epochs 10 --device cuda --seed 0 --out "$work/mnist"
    else
        skip mnist "GPUBP_DATA_DIR holds no mnist/"
    fi
fi
if wanted compare; then
    # alone, the autotuning contenders prepare one after another, undisturbed, and all rounds are made
    left=$((total - SECONDS - 10))
    if $alone; then together=2 ready=$((left * 6 / 10)); else together=12 ready=$((left * 5 / 10)); fi
    part compare "$left" "$python" bench/compare.py --device cuda --precisions float32,tf32,bfloat16 --rounds 9 \
        --seconds 0.1 --prepare-seconds "$ready" --together "$together" --budget $((left - 15)) --out "$work/compare.json"
fi

"$python" bench/gpu/report.py --work "$work" --out "$out" --seconds "$SECONDS"
