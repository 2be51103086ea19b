"""Fused kernels. They know tensors, not modules; the plain formulas in `vision.norms` define them.

ops.py registers the operators and backend.py chooses what computes them: seednorm_triton.py on
GPUs, seednorm_cpu.py with seednorm.cpp on CPUs. Only SeeDNorm has a kernel: LayerNorm has torch's,
and torch.compile fuses an elementwise norm by itself.

The CPU kernel is C++ and not torch.compile's work, because it is faster, is built once per machine
for all shapes, and never recompiles during a run.
"""
