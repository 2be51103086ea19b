// SeeDNorm on the CPU: y = [s α + γ] ⊙ x r with r = 1/RMS(x) and one s = tanh(x·βᵀ) per head.
//
// cpu_build.py builds it once per machine into a shared library with a plain C interface, without
// libtorch, so a build takes seconds. OpenMP symbols stay undefined in the library and resolve to
// the runtime that torch has loaded: a second runtime would compete with it for the cores.
//
// Arithmetic is in float for half precision and float, in double for double. The first loop over a
// row brings it into the L1 cache for the others.

#include <sys/mman.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

struct BFloat16 { uint16_t bits; };

inline float widen(BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}
inline float widen(_Float16 value) { return static_cast<float>(value); }

inline void narrow(float value, BFloat16& out) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t nearest_even = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;  // rounding could carry it to infinity
  out.bits = static_cast<uint16_t>(is_nan ? 0x7fc0u : nearest_even);
}
inline void narrow(float value, _Float16& out) { out = static_cast<_Float16>(value); }

// A row in the precision of the arithmetic: the row itself, or its copy in `buffer`.
template <typename S> const S* open(const S* row, S*, int64_t) { return row; }
template <typename T, typename S> const S* open(const T* row, S* buffer, int64_t dim) {
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) buffer[i] = widen(row[i]);
  return buffer;
}

// Where to compute a row's result, and the step that writes it into the tensor.
template <typename S> S* place(S* row, S*) { return row; }
template <typename T, typename S> S* place(T*, S* buffer) { return buffer; }
template <typename S> void close(const S*, S*, int64_t) {}
template <typename T, typename S> void close(const S* buffer, T* row, int64_t dim) {
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) narrow(buffer[i], row[i]);
}

// A SIMD vector of 32 or 16 bytes.
template <typename S, int bytes> struct Vector {
  static constexpr int size = bytes / sizeof(S);
  typedef S type __attribute__((vector_size(bytes)));
  typedef S unaligned __attribute__((vector_size(bytes), aligned(sizeof(S)), may_alias));
  static type load(const S* from) { return *reinterpret_cast<const unaligned*>(from); }
  static void store(S* to, type value) { *reinterpret_cast<unaligned*>(to) = value; }
  static S sum(type v) {  // by halves: one element at a time would take three times as long
    for (int half = size / 2; half > 0; half /= 2)
      for (int k = 0; k < half; ++k) v[k] += v[k + half];
    return v[0];
  }
};
template <typename S> S load_one(const S* from) { return *from; }
template <typename S> void store_one(S* to, S value) { *to = value; }

// work(load, store, i) for all i from begin to end: 32 bytes at a time, then 16, then one element.
template <typename S, typename Work> void sweep(int64_t begin, int64_t end, const Work& work) {
  using V = Vector<S, 32>;
  using W = Vector<S, 16>;
  int64_t i = begin;
  for (; i + V::size <= end; i += V::size) work(V::load, V::store, i);
  for (; i + W::size <= end; i += W::size) work(W::load, W::store, i);
  for (; i < end; ++i) work(load_one<S>, store_one<S>, i);
}

// A sum in vectors: several of them hide the latency of additions, and the slow sum within a vector
// is taken once, in value(). The order of additions depends on their number alone.
template <typename S> struct Sum {
  using V = Vector<S, 32>;
  using W = Vector<S, 16>;
  typename V::type wide[4] = {};
  typename W::type half = {};
  S one = 0;
  void add(typename V::type v, int k) { wide[k] += v; }
  void add(typename W::type v, int) { half += v; }
  void add(S v, int) { one += v; }
  S value() const {
    const auto v = wide[0] + wide[1] + (wide[2] + wide[3]);
    typename W::type w = half;
    for (int k = 0; k < W::size; ++k) w[k] += v[k] + v[k + W::size];
    return W::sum(w) + one;
  }
};

// Adds Σ a_i b_i to `first` and returns Σ a_i c_i, where left(load, i) gives a_i.
template <typename S, typename Left>
S dots(const Left& left, const S* b, const S* c, int64_t n, Sum<S>& first) {
  constexpr int size = Vector<S, 32>::size, count = 4;
  Sum<S> second;
  const auto add = [&](auto load, int64_t i, int k) {
    const auto a = left(load, i);
    first.add(a * load(b + i), k);
    second.add(a * load(c + i), k);
  };
  int64_t i = 0;
  for (; i + count * size <= n; i += count * size)
    for (int k = 0; k < count; ++k) add(Vector<S, 32>::load, i + k * size, k);
  sweep<S>(i, n, [&](auto load, auto, int64_t j) { add(load, j, 0); });
  return second.value();
}

// tanh in place. One call of the library's tanhf per head would cost as much as the rest of a row.
// This form vectorizes: tanh(v) = e/(e + 2), e = exp(2v) − 1 = 2ⁿ (exp(f) − 1) + 2ⁿ − 1, where
// f = 2v − n ln 2 is small enough for a short series. Relative error below 3e-7.
inline void tanh_all(float* values, int64_t n) {
  constexpr float ln2_high = 0.693145752f, ln2_low = 1.42860677e-6f, inverse = 1.44269504f;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float v = values[i];
    float twice = 2 * v;  // NaN passes both comparisons; beyond ±20 the result is ±1
    twice = twice > 20.0f ? 20.0f : twice;
    twice = twice < -20.0f ? -20.0f : twice;
    const float steps = std::nearbyint(twice * inverse);
    const float f = (twice - steps * ln2_high) - steps * ln2_low;
    float series = 1.0f / 40320;
    series = series * f + 1.0f / 5040;
    series = series * f + 1.0f / 720;
    series = series * f + 1.0f / 120;
    series = series * f + 1.0f / 24;
    series = series * f + 1.0f / 6;
    series = series * f + 0.5f;
    series = series * f * f + f;
    const int32_t bits = (static_cast<int32_t>(steps) + 127) << 23;
    float power;
    __builtin_memcpy(&power, &bits, sizeof power);
    const float e = power * series + (power - 1);
    values[i] = e / (e + 2);
  }
}
inline void tanh_all(double* values, int64_t n) {
  for (int64_t i = 0; i < n; ++i) values[i] = std::tanh(values[i]);
}

template <typename S> struct Parameters {
  const S *alpha, *beta, *gamma;
  int64_t dim, heads;
};

template <typename S>
void forward_row(const S* __restrict x, S* __restrict y, S* rstd, S* s, const Parameters<S>& p,
                 S eps) {
  const int64_t width = p.dim / p.heads;
  Sum<S> squares;
  for (int64_t h = 0; h < p.heads; ++h) {
    const int64_t at = h * width;
    const auto left = [=](auto load, int64_t i) { return load(x + at + i); };
    s[h] = dots(left, x + at, p.beta + at, width, squares);
  }
  tanh_all(s, p.heads);
  const S r = 1 / std::sqrt(squares.value() / static_cast<S>(p.dim) + eps);
  *rstd = r;
  for (int64_t h = 0; h < p.heads; ++h) {
    const S head = s[h];
    sweep<S>(h * width, (h + 1) * width, [=](auto load, auto store, int64_t i) {
      store(y + i, (head * load(p.alpha + i) + load(p.gamma + i)) * (load(x + i) * r));
    });
  }
}

// With g = dy, u = x r, c = s α + γ, ds = Σ_head g u α:
// dx = r (g c − u mean(g c u)) + ds (1 − s²) β; the means and ds come from Σ g x α and Σ g x γ.
// `sums` is [3, dim], the gradients of α, β, γ over the rows seen so far.
template <typename S>
void backward_row(const S* __restrict x, const S* __restrict g, S* __restrict dx, S r, const S* s,
                  const Parameters<S>& p, S* sums, S* slope) {
  const int64_t width = p.dim / p.heads;
  S *dalpha = sums, *dbeta = sums + p.dim, *dgamma = sums + 2 * p.dim;
  S dynamic = 0;
  Sum<S> fixed;
  for (int64_t h = 0; h < p.heads; ++h) {
    const int64_t at = h * width;
    const auto left = [=](auto load, int64_t i) { return load(g + at + i) * load(x + at + i); };
    const S sum = dots(left, p.gamma + at, p.alpha + at, width, fixed);
    dynamic += s[h] * sum;
    slope[h] = r * sum * (1 - s[h] * s[h]);
  }
  // r stays apart: r³ would underflow for large x
  const S mean = r * (dynamic + fixed.value()) / static_cast<S>(p.dim);
  for (int64_t h = 0; h < p.heads; ++h) {
    const S head = s[h], t = slope[h];
    sweep<S>(h * width, (h + 1) * width, [=](auto load, auto store, int64_t i) {
      const auto xi = load(x + i);
      const auto gi = load(g + i) * r;
      const auto gu = gi * xi;
      store(dalpha + i, load(dalpha + i) + head * gu);
      store(dbeta + i, load(dbeta + i) + t * xi);
      store(dgamma + i, load(dgamma + i) + gu);
      const auto c = head * load(p.alpha + i) + load(p.gamma + i);
      store(dx + i, (gi * c - r * (xi * r * mean)) + t * load(p.beta + i));
    });
  }
}

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

template <typename T, typename S>
void forward(const T* x, int64_t stride, T* y, S* rstd, S* s, const Parameters<S>& p, int64_t rows,
             double eps, int threads) {
#pragma omp parallel num_threads(threads)
  {
    std::vector<S> in(p.dim), out(p.dim);
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      if (row % kBatch == 0) populate(y, row, rows, p.dim);
      const S* wide = open(x + row * stride, in.data(), p.dim);
      S* result = place(y + row * p.dim, out.data());
      forward_row(wide, result, rstd + row, s + row * p.heads, p, static_cast<S>(eps));
      close(result, y + row * p.dim, p.dim);
    }
  }
}

// `partial` is [chunks, 3, dim], `total` [3, dim]. A chunk is a fixed range of rows with sums of
// its own, so the result depends neither on which thread takes it nor on the number of threads. A
// static schedule gives a thread adjacent rows, so threads seldom touch the same new page.
template <typename T, typename S>
void backward(const T* x, int64_t x_stride, const T* dy, int64_t dy_stride, T* dx, const S* rstd,
              const S* s, const Parameters<S>& p, S* partial, S* total, int64_t rows,
              int64_t chunks, int threads) {
  const int64_t size = chunks > 0 ? (rows + chunks - 1) / chunks : 0;
#pragma omp parallel num_threads(threads)
  {
    std::vector<S> in(p.dim), grad(p.dim), out(p.dim), slope(p.heads);
#pragma omp for schedule(static)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      S* own = partial + chunk * 3 * p.dim;
      std::memset(own, 0, 3 * p.dim * sizeof(S));
      const int64_t end = (chunk + 1) * size < rows ? (chunk + 1) * size : rows;
      for (int64_t row = chunk * size; row < end; ++row) {
        if (row % kBatch == 0) populate(dx, row, rows, p.dim);
        const S* wide = open(x + row * x_stride, in.data(), p.dim);
        const S* wide_grad = open(dy + row * dy_stride, grad.data(), p.dim);
        S* result = place(dx + row * p.dim, out.data());
        backward_row(wide, wide_grad, result, rstd[row], s + row * p.heads, p, own,
                     slope.data());
        close(result, dx + row * p.dim, p.dim);
      }
    }
#pragma omp for schedule(static)
    for (int64_t part = 0; part < 3; ++part) {
      S* sum = total + part * p.dim;
      std::memset(sum, 0, p.dim * sizeof(S));
      for (int64_t chunk = 0; chunk < chunks; ++chunk)
        for (int64_t i = 0; i < p.dim; ++i) sum[i] += partial[(chunk * 3 + part) * p.dim + i];
    }
  }
}

}  // namespace

// T: dtype of x, S: that of the arithmetic
#define SEEDNORM_EXPORT(NAME, T, S)                                                                \
  extern "C" void seednorm_forward_##NAME(                                                         \
      const T* x, int64_t stride, T* y, S* rstd, S* s, const S* alpha, const S* beta,              \
      const S* gamma, int64_t rows, int64_t dim, int64_t heads, double eps, int threads) {         \
    forward<T, S>(x, stride, y, rstd, s, {alpha, beta, gamma, dim, heads}, rows, eps, threads);    \
  }                                                                                                \
  extern "C" void seednorm_backward_##NAME(                                                        \
      const T* x, int64_t x_stride, const T* dy, int64_t dy_stride, T* dx, const S* rstd,          \
      const S* s, const S* alpha, const S* beta, const S* gamma, S* partial, S* total,             \
      int64_t rows, int64_t dim, int64_t heads, int64_t chunks, int threads) {                     \
    backward<T, S>(x, x_stride, dy, dy_stride, dx, rstd, s, {alpha, beta, gamma, dim, heads},      \
                   partial, total, rows, chunks, threads);                                         \
  }

SEEDNORM_EXPORT(float32, float, float)
SEEDNORM_EXPORT(float64, double, double)
SEEDNORM_EXPORT(bfloat16, BFloat16, float)
SEEDNORM_EXPORT(float16, _Float16, float)
