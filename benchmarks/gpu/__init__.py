"""Everything that is measured on a GPU, by one command that spends few minutes: `benchmarks.gpu`.

    python -m benchmarks.gpu --out results/gpu --minutes 9 --data DATA
    python -m benchmarks.gpu --out /tmp/gpu --dry
    python -m benchmarks.gpu.report results/gpu

The pieces in order of worth, each a process of its own with its own limit and its own file:

    facts        device, driver, versions; peak of matrix products and of copying
    equal        logits on the CPU and the device; attention beside a dense form; tests
    steps        training and inference beside PyTorch, TF32 and bfloat16
    attention    attention over 65,536 pixels beside PyTorch's fused kernels
    models       several models as one program, models per hour
    tables       rows of fba-t1, fbu-t1 and aep-t4 with three seeds each

A file is written anew after every case, so a command that is cut off loses one case. The error of
a case or a piece is its result, and what is left out is printed with its reason. `--dry` takes the
same way at toy size, on any machine.
"""
