// The skeleton of every CPU kernel: rows, threads, dtypes, and the sums of parameter gradients.
//
// A norm is a class template over the dtype S of the arithmetic. An object of it belongs to one
// thread and may hold scratch memory. It has
//
//   Norm(const Call<S>& call)
//   void forward(int64_t row, const S* x, S* y)         one row [dim]
//   void backward(int64_t row, const S* x, const S* g, S* dx, S* sums)
//   static constexpr int vectors            `sums` is [vectors, dim], call.step() between them ...
//   static void finish(const Call<S>&, const S* sums, S* gradients)   ... over all rows, from which
//       this computes the parameters' gradients, one after the other
//
// and EXPORT_NORM(name, Norm) makes its functions. See rmsnorm.cpp; elementwise norms need less
// (elementwise.h). cpu_build.py builds one file into one shared library with a plain C interface.
// OpenMP symbols stay undefined in it and resolve to the runtime that torch has loaded: a second
// runtime would compete with it for the cores.

#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "vectors.h"

// The arguments of a call that do not depend on the dtype of x.
template <typename S> struct Call {
  const S* parameters[4];  // in the order in which ops.py lists them
  S *rstd, *heads_kept;    // [rows] and [rows, heads], for the backward; null in a norm without
  const uint8_t* mask;     // [rows, heads], 0 where a head's coefficient is dropped; or null
  double keep;             // the probability that it is not
  double eps;
  int64_t rows, dim, heads;
  // y (1 + scale) + shift for the norm's y, in adaptive norms of diffusion transformers: [samples,
  // dim] each, and how many adjacent rows are one sample's. Null where there is no such thing.
  const S *scale, *shift;
  S *dscale, *dshift;
  int64_t tokens;

  // From one array [dim] of a thread's memory to the next: never a multiple of 4 KiB, at which a
  // processor takes a load for one of what was just stored in another array.
  int64_t step() const { return (dim + 15) / 16 * 16 + 80; }
};

namespace {

// A result over 32 MiB is new memory (the allocator keeps no block that large), and its page faults
// cost as much as the arithmetic. One call for the pages of the next rows is cheaper, and they are
// in the cache when the rows are written. Only a hint: systems without it work too.
constexpr int64_t kBatch = 64;
template <typename T> void populate(T* result, int64_t row, int64_t rows, int64_t dim) {
#ifdef MADV_POPULATE_WRITE
  constexpr uintptr_t page = 4096;
  if (rows * dim * int64_t{sizeof(T)} < (int64_t{1} << 25)) return;
  const int64_t last = row + kBatch < rows ? row + kBatch : rows;
  const uintptr_t from = (reinterpret_cast<uintptr_t>(result + row * dim) + page - 1) & ~(page - 1);
  const uintptr_t to = reinterpret_cast<uintptr_t>(result + last * dim) & ~(page - 1);
  if (to > from) madvise(reinterpret_cast<void*>(from), to - from, MADV_POPULATE_WRITE);
#endif
}

// A norm with a statistic reads a row once for it and again for the result, which waits for it. So the
// processor does not get to the next row by itself, and each begins with the latency of the memory.
// Fetched a row ahead, to be read and to be written, short ones take up to a quarter less time; more
// than a page gains nothing. Elementwise norms run ahead anyway.
template <typename T, typename S> bool worth_fetching(const Call<S>& call) {
  return call.rstd != nullptr && call.dim * int64_t{sizeof(T)} <= 4096;
}
template <int to_write, typename T> void fetch(const T* row, int64_t dim) {
  const char* const bytes = reinterpret_cast<const char*>(row);
  for (int64_t i = 0; i < dim * int64_t{sizeof(T)}; i += 64)
    __builtin_prefetch(bytes + i, to_write);
}

// y (1 + scale) + shift in place, for one row.
template <typename S> void modulate(const Call<S>& call, int64_t row, S* y) {
  const int64_t sample = row / call.tokens * call.dim;
  const S *scale = call.scale + sample, *shift = call.shift + sample;
  each<S>(call.dim, [=](auto v, int64_t i) {
    v.store(y + i, v.load(y + i) * (v.load(scale + i) + 1) + v.load(shift + i));
  });
}

// Adds a row's share to the gradients of scale and shift; g becomes that of the norm's y, of which
// there is a copy here.
template <typename S>
void modulate_backward(const Call<S>& call, int64_t row, const S* y, const S* given, S* g) {
  const int64_t sample = row / call.tokens * call.dim;
  const S* scale = call.scale + sample;
  S *dscale = call.dscale + sample, *dshift = call.dshift + sample;
  if (row % call.tokens == 0) {
    std::fill(dscale, dscale + call.dim, S{0});
    std::fill(dshift, dshift + call.dim, S{0});
  }
  each<S>(call.dim, [=](auto v, int64_t i) {
    const auto g_i = v.load(given + i);
    v.store(dscale + i, v.load(dscale + i) + g_i * v.load(y + i));
    v.store(dshift + i, v.load(dshift + i) + g_i);
    v.store(g + i, g_i * (v.load(scale + i) + 1));
  });
}

// A thread should have this many elements to be worth starting.
constexpr int64_t kGrain = 1 << 14;
inline int use_threads(int64_t rows, int64_t dim, int threads) {
  return static_cast<int>(std::clamp<int64_t>(rows * dim / kGrain, 1, threads));
}

template <typename Norm, typename T, typename S>
void run_forward(const T* x, int64_t stride, T* y, const Call<S>& call, int threads) {
  const int64_t rows = call.rows, dim = call.dim;
  const bool fetching = worth_fetching<T>(call);
#pragma omp parallel num_threads(use_threads(rows, dim, threads))
  {
    Norm norm(call);
    Scratch<S> wide(2 * call.step());
    S *const in = wide.data(), *const out = in + call.step();
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      if (row % kBatch == 0) populate(y, row, rows, dim);
      if (fetching && row + 1 < rows) {
        fetch<0>(x + (row + 1) * stride, dim);
        fetch<1>(y + (row + 1) * dim, dim);
      }
      const S* own_x = open(x + row * stride, in, dim);
      S* result = place(y + row * dim, out);
      norm.forward(row, own_x, result);
      if (call.scale != nullptr) modulate(call, row, result);
      close(result, y + row * dim, dim);
    }
  }
}

// A chunk is a fixed range of rows with sums of its own, so the result depends neither on which
// thread takes it nor on the number of threads. A static schedule gives a thread adjacent rows, so
// threads seldom touch the same new page. With a modulation a chunk has whole samples, whose sums it
// makes alone.
constexpr int64_t kChunks = 64, kChunkRows = 40;

template <typename Norm, typename T, typename S>
void run_backward(const T* x, int64_t x_stride, const T* dy, int64_t dy_stride, T* dx, S* gradients,
                  const Call<S>& call, int threads) {
  const int64_t rows = call.rows, dim = call.dim, all = Norm::vectors * call.step();
  const bool fetching = worth_fetching<T>(call);
  const int64_t unit = call.scale == nullptr ? 1 : call.tokens, units = rows / unit;
  const int64_t least = (kChunkRows + unit - 1) / unit;  // units
  const int64_t chunks = std::min(kChunks, (units + least - 1) / least);
  const int64_t size = chunks > 0 ? (units + chunks - 1) / chunks * unit : 0;
  static thread_local Scratch<S> partial;  // kept: new memory would cost page faults
  partial.reserve((chunks + 1) * all);
  S *const total = partial.data(), *const first = total + all;
#pragma omp parallel num_threads(use_threads(rows, dim, threads))
  {
    Norm norm(call);
    Scratch<S> wide(5 * call.step());
    S *const in = wide.data(), *const grad = in + call.step(), *const out = grad + call.step();
    S *const plain = out + call.step(), *const plain_grad = plain + call.step();
#pragma omp for schedule(static)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      S* own = first + chunk * all;
      std::fill(own, own + all, S{0});
      const int64_t end = std::min((chunk + 1) * size, rows);
      for (int64_t row = chunk * size; row < end; ++row) {
        if (row % kBatch == 0) populate(dx, row, rows, dim);
        if (fetching && row + 1 < rows) {
          fetch<0>(x + (row + 1) * x_stride, dim);
          fetch<0>(dy + (row + 1) * dy_stride, dim);
          fetch<1>(dx + (row + 1) * dim, dim);
        }
        const S* own_x = open(x + row * x_stride, in, dim);
        const S* own_grad = open(dy + row * dy_stride, grad, dim);
        S* result = place(dx + row * dim, out);
        if (call.scale != nullptr) {
          norm.forward(row, own_x, plain);  // again: cheaper than to keep it
          modulate_backward(call, row, plain, own_grad, plain_grad);
          own_grad = plain_grad;
        }
        norm.backward(row, own_x, own_grad, result, own);
        close(result, dx + row * dim, dim);
      }
    }
#pragma omp for schedule(static)
    for (int64_t block = 0; block < all; block += 256) {
      const int64_t end = std::min(block + 256, all);
      std::fill(total + block, total + end, S{0});
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const S* own = first + chunk * all;
        for (int64_t i = block; i < end; ++i) total[i] += own[i];
      }
    }
  }
  Norm::finish(call, total, gradients);
}

}  // namespace

#define EXPORTED __attribute__((visibility("default")))

// T: dtype of x, S: that of the arithmetic. cpu.py and dispatch.cpp hold the same list of arguments.
#define CALL_ARGUMENTS(S)                                                                          \
  const S *p0, const S *p1, const S *p2, const S *p3, S *rstd, S *heads_kept, const uint8_t *mask, \
      double keep, double eps, int64_t rows, int64_t dim, int64_t heads, const S *scale,           \
      const S *shift, S *dscale, S *dshift, int64_t tokens, int threads
#define CALL(S)                                                                                    \
  Call<S>{{p0, p1, p2, p3}, rstd, heads_kept, mask, keep, eps, rows, dim, heads, scale, shift,     \
          dscale, dshift, tokens}
#define EXPORT_NORM_OF(NORM, DTYPE, T, S)                                                          \
  extern "C" EXPORTED void forward_##DTYPE(const T* x, int64_t stride, T* y, CALL_ARGUMENTS(S)) {  \
    run_forward<NORM<S>>(x, stride, y, CALL(S), threads);                                          \
  }                                                                                                \
  extern "C" EXPORTED void backward_##DTYPE(const T* x, int64_t stride, const T* dy,               \
                                            int64_t dy_stride, T* dx, S* gradients,                \
                                            CALL_ARGUMENTS(S)) {                                   \
    run_backward<NORM<S>>(x, stride, dy, dy_stride, dx, gradients, CALL(S), threads);              \
  }

#define EXPORT_NORM(NORM)                                                                          \
  EXPORT_NORM_OF(NORM, float32, float, float)                                                      \
  EXPORT_NORM_OF(NORM, float64, double, double)                                                    \
  EXPORT_NORM_OF(NORM, bfloat16, BFloat16, float)                                                  \
  EXPORT_NORM_OF(NORM, float16, _Float16, float)
