#!/usr/bin/env bash
# All that a machine with a GPU can tell about one backend, in one command and one folder:
#
#     benchmarks/gpu.sh                     # PyTorch on cuda, about half an hour
#     BACKEND=tensorflow benchmarks/gpu.sh  # another backend
#     DEVICE=cpu QUICK=1 benchmarks/gpu.sh  # the script itself, tried in minutes without a GPU
#
# It takes Fashion-MNIST from ALEXNET_MF_DATA_DIR or downloads it. A part that fails does not keep the others from
# running; the exit code then is 1, and log.txt says which. No GPU has run the whole of it yet.
set -uo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python}
backend=${BACKEND:-torch}
device=${DEVICE:-cuda}
out=${OUT:-benchmarks/results/$(date -u +%Y%m%d-%H%M)-$backend-$device}
if [ "$device" = cpu ]; then have=float32,bfloat16; elif [ "$backend" = mxnet ]; then have=float32,float16; else
    have=float32,tf32,bfloat16; fi
precisions=${PRECISIONS:-$have}
case $backend-$device in  # settings that are on by themselves, to be left out; and those that are off, each and all
    torch-cpu) ablated=allocator,layout tried=fused,fold,compile,fused+fold+compile ;;
    torch-*) ablated=layout,fused,fold,graph tried=compile ;;
    *) ablated=compile tried="" ;;
esac
settings=(--ablate "${ABLATED:-$ablated}"); [ -z "${TRIED:-$tried}" ] || settings+=(--try "${TRIED:-$tried}")
best=${BEST:-${tried:+--${tried##*,}}}  # for a second training
best=${best//+/ --}

if [ -n "${QUICK:-}" ]; then
    data=synthetic sizes=4 rounds=1
    recipe=(--recipe book --epochs 1 --limit-train 32 --limit-test 32 --batch-size 8)
    ladder=(--batch-size 2 --steps 1 --images 16) samples=(--sample-seconds 0.01 --epoch-batches 2)
else
    data=fashion-mnist sizes=${SIZES:-128,512,2048} rounds=9
    recipe=(--recipe book)
    ladder=() samples=(--epoch-batches 20)
fi

mkdir -p "$out"
failed=0
part() {  # NAME COMMAND...: runs a part, shows and keeps what it says
    local name=$1
    shift
    printf '\n== %s\n$ %s\n' "$name" "$*" | tee -a "$out/log.txt"
    "$@" 2>&1 | tee -a "$out/log.txt"
    local code=${PIPESTATUS[0]}
    if [ "$code" -ne 0 ]; then
        echo "== $name failed with exit code $code" | tee -a "$out/log.txt"
        failed=1
    fi
}
run=("$python" -m alexnet_mf)

part "what there is" "${run[@]}" list backends
for precision in ${precisions//,/ }; do
    part "parity in $precision" "${run[@]}" parity --backends "$backend" --device "$device" --data "$data" \
        --precision "$precision" "${ladder[@]}" --json "$out/parity-$precision.json"
done
# shellcheck disable=SC2086 # several flags
part "parity with $best" "${run[@]}" parity --backends "$backend" --device "$device" --data "$data" $best \
    "${ladder[@]}" --json "$out/parity-best.json"
for precision in ${precisions//,/ }; do
    part "training in $precision" "${run[@]}" train --backend "$backend" --device "$device" --data "$data" \
        --precision "$precision" "${recipe[@]}" --json "$out/train-$precision.json"
    # shellcheck disable=SC2086
    part "training in $precision with $best" "${run[@]}" train --backend "$backend" --device "$device" --data "$data" \
        --precision "$precision" $best "${recipe[@]}" --json "$out/train-$precision-best.json"
done
part "benchmark" "${run[@]}" bench --backends "$backend" --device "$device" --precision "$precisions" \
    --batch-size "$sizes" --rounds "$rounds" "${samples[@]}" --json "$out/bench.json"
part "what each setting gains" "${run[@]}" bench --backends "$backend" --device "$device" --precision "$precisions" \
    --batch-size "${sizes%%,*}" --rounds "$rounds" --phases forward,step "${settings[@]}" "${samples[@]}" \
    --json "$out/settings.json"
for size in ${sizes//,/ }; do  # exit code 1: the predicted peak is off by more than 10 % of the allocator's
    for net in alexnet alexnet-2012 alexnet-owt; do
        part "what $net costs at batch $size" "${run[@]}" analyze --backend "$backend" --device "$device" --net "$net" \
            --recipe "${recipe[1]}" --batch-size "$size" --rounds "$rounds" --json "$out/analysis-$net-$size.json"
    done
done
if [ "$backend" = torch ]; then
    part "where a step's time goes" "$python" benchmarks/profile_torch.py --device "$device" --out "$out/profile.txt"
    # shellcheck disable=SC2086
    part "where it goes with $best" "$python" benchmarks/profile_torch.py --device "$device" $best \
        --out "$out/profile-best.txt"
fi
echo
echo "results: $out (exit code $failed)"
exit $failed
