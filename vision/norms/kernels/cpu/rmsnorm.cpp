// RMSNorm: y = w ⊙ x r with r = 1/RMS(x).

#include "norm.h"
#include "rms.h"

template <typename S> struct RMSNorm {
  static constexpr int vectors = 1;
  const Call<S>& call;
  explicit RMSNorm(const Call<S>& given) : call(given) {}

  void forward(int64_t row, const S* x, S* y) {
    const S squares = sum<S>(call.dim, [=](auto v, int64_t i) {
      return v.load(x + i) * v.load(x + i);
    });
    const S r = call.rstd[row] = inverse_rms(squares, call), *w = call.parameters[0];
    each<S>(call.dim,
            [=](auto v, int64_t i) { v.store(y + i, v.load(w + i) * (v.load(x + i) * r)); });
  }

  // dx = r (g w − u mean(g w u)) with u = x r
  void backward(int64_t row, const S* x, const S* g, S* dx, S* dw) {
    const S r = call.rstd[row], *w = call.parameters[0];
    const S all = sum<S>(call.dim, [=](auto v, int64_t i) {
      return v.load(g + i) * v.load(x + i) * v.load(w + i);
    });
    const S mean = r * all / static_cast<S>(call.dim);  // r³ would underflow for large x
    each<S>(call.dim, [=](auto v, int64_t i) {
      const auto x_i = v.load(x + i), gr = v.load(g + i) * r;
      v.store(dw + i, v.load(dw + i) + gr * x_i);
      v.store(dx + i, gr * v.load(w + i) - r * (x_i * r * mean));
    });
  }

  static void finish(const Call<S>& call, const S* total, S* gradients) {
    std::copy(total, total + call.dim, gradients);
  }
};

EXPORT_NORM(RMSNorm)
