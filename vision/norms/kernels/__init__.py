"""Fused kernels. They know tensors, not modules; the plain formulas in `vision.norms` define them.

ops.py registers a norm's operators and backend.py chooses what computes them: a C++ file of cpu/,
called by cpu.py and built by cpu_build.py, on CPUs; a Triton module, NAME_triton.py, on GPUs.
cpu/norm.h has what all C++ kernels share (rows, threads, dtypes, sums of gradients), so that a norm
is its formula and its derivative; cpu/elementwise.h leaves a function and its slope.
rows_triton.py is the same for Triton, launched by row_norm.py.

The CPU kernels are C++ and not torch.compile's work, because they are faster, are built once per
machine for all shapes, and never recompile during a run.
"""
