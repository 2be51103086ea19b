// LayerNorm: y = w ⊙ u + b with u = (x − m) r, m the mean and r = 1/sqrt(variance + eps). What a norm
// with heads keeps per head holds m here.

#include <cmath>

#include "norm.h"

template <typename S> struct LayerNorm {
  static constexpr int vectors = 2;
  const Call<S>& call;
  explicit LayerNorm(const Call<S>& given) : call(given) {}

  void forward(int64_t row, const S* x, S* y) {
    const S *w = call.parameters[0], *b = call.parameters[1], dim = static_cast<S>(call.dim);
    // around a number of the row: where all channels are nearly the same, what rounding makes of
    // their mean is a large part of the variance
    const S near = x[0];
    const S m = near + sum<S>(call.dim, [=](auto v, int64_t i) {
      return v.load(x + i) - near;
    }) / dim;
    const S squares = sum<S>(call.dim, [=](auto v, int64_t i) {
      const auto centred = v.load(x + i) - m;
      return centred * centred;
    });
    const S r = 1 / std::sqrt(squares / dim + static_cast<S>(call.eps));
    call.heads_kept[row] = m;
    call.rstd[row] = r;
    each<S>(call.dim, [=](auto v, int64_t i) {
      v.store(y + i, v.load(w + i) * ((v.load(x + i) - m) * r) + v.load(b + i));
    });
  }

  // dx = r (g w − mean(g w) − u mean(g w u)); `sums` is for w and b
  void backward(int64_t row, const S* x, const S* g, S* dx, S* sums) {
    const S *w = call.parameters[0], m = call.heads_kept[row], r = call.rstd[row];
    const S dim = static_cast<S>(call.dim);
    const S mean = sum<S>(call.dim, [=](auto v, int64_t i) {
      return v.load(g + i) * v.load(w + i);
    }) / dim;
    const S slope = sum<S>(call.dim, [=](auto v, int64_t i) {
      return v.load(g + i) * v.load(w + i) * ((v.load(x + i) - m) * r);
    }) / dim;
    S *dw = sums, *db = sums + call.step();
    each<S>(call.dim, [=](auto v, int64_t i) {
      const auto g_i = v.load(g + i), u = (v.load(x + i) - m) * r;
      v.store(dw + i, v.load(dw + i) + g_i * u);
      v.store(db + i, v.load(db + i) + g_i);
      v.store(dx + i, r * (g_i * v.load(w + i) - mean - u * slope));
    });
  }

  static void finish(const Call<S>& call, const S* total, S* gradients) {
    std::copy(total, total + call.dim, gradients);
    std::copy(total + call.step(), total + call.step() + call.dim, gradients + call.dim);
  }
};

EXPORT_NORM(LayerNorm)
