"""Fused kernels. They know tensors, not modules; the plain formulas in `vision.norms` define them.

ops.py registers the operators, backend.py chooses what computes, seednorm_triton.py is for GPUs,
seednorm_cpu.py with seednorm.cpp for CPUs. Only SeeDNorm has a kernel: LayerNorm has torch's, and
torch.compile makes one of an elementwise norm.

Why the CPU's kernel is C++ and not torch.compile's work. Measured on 2 cores (Zen 3, AVX2, shared)
at [64 * 197, 768] in float32 with 16 heads, medians of 15 interleaved rounds, relative to
nn.LayerNorm (32 ms forward, 77 ms with backward):

    plain formula    6.5 forward    10.1 forward and backward
    torch.compile    1.45            1.79     first call 14.5 s and 3 s, again for other dtypes
    C++              1.00            0.91     one build of 3 s per machine, for all shapes

It is also as simple: one file without libtorch, and nothing to guard or recompile.
"""
