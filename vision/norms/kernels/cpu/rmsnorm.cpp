// RMSNorm: y = w ⊙ x r with r = 1/RMS(x).

#include "norm.h"
#include "rms.h"

template <typename S> struct RMSNorm {
  static constexpr int vectors = 1;
  const Call<S>& call;
  explicit RMSNorm(const Call<S>& given) : call(given) {}

  void forward(int64_t row, const S* __restrict x, S* __restrict y) {
    const S r = inverse_rms(x, call);
    const S* __restrict w = call.parameters[0];
    call.rstd[row] = r;
#pragma omp simd
    for (int64_t i = 0; i < call.dim; ++i) y[i] = w[i] * (x[i] * r);
  }

  // dx = r (g w − u mean(g w u)) with u = x r
  void backward(int64_t row, const S* __restrict x, const S* __restrict g, S* __restrict dx,
                S* __restrict dw) {
    const S r = call.rstd[row];
    const S* __restrict w = call.parameters[0];
    const S all = sum<S>(0, call.dim, [=](auto v, int64_t i) {
      return v.load(g + i) * v.load(x + i) * v.load(w + i);
    });
    const S mean = r * all / static_cast<S>(call.dim);  // r³ would underflow for large x
#pragma omp simd
    for (int64_t i = 0; i < call.dim; ++i) {
      const S gr = g[i] * r;
      dw[i] += gr * x[i];
      dx[i] = gr * w[i] - r * (x[i] * r * mean);
    }
  }

  static void finish(const Call<S>& call, const S* total, S* gradients) {
    std::copy(total, total + call.dim, gradients);
  }
};

EXPORT_NORM(RMSNorm)
