// SeeDNorm: y = [e α + γ] ⊙ x r with r = 1/RMS(x) and per head e = s m, s = tanh(x·βᵀ); m is 1, or
// with dropout of the coefficient 0 or 1/keep.

#include "norm.h"
#include "rms.h"

// A number per head, for the elements of one head or, spread over the row, of all.
template <typename S> struct OfHead {
  S value;
  S operator[](int64_t) const { return value; }
};

template <typename S> struct SeeDNorm {
  static constexpr int vectors = 3;
  static constexpr int64_t narrow = kBytes / sizeof(S);  // a vector
  const Call<S>& call;
  const S *alpha, *beta, *gamma;
  int64_t width;
  std::vector<S> e, t;              // [heads]
  std::vector<S> e_spread, t_spread;  // [dim] and a vector more

  explicit SeeDNorm(const Call<S>& given)
      : call(given), alpha(call.parameters[0]), beta(call.parameters[1]), gamma(call.parameters[2]),
        width(call.dim / call.heads), e(call.heads), t(call.heads), e_spread(call.dim + kBytes),
        t_spread(call.dim + kBytes) {}

  // what a head's coefficient is multiplied with
  S kept(int64_t row, int64_t h) const {
    if (call.mask == nullptr) return 1;
    return call.mask[row * call.heads + h] ? static_cast<S>(1 / call.keep) : S{0};
  }

  void set_coefficients(int64_t row) {
    const S* s = call.heads_kept + row * call.heads;
    for (int64_t h = 0; h < call.heads; ++h) e[h] = s[h] * kept(row, h);
  }

  // work(begin, end, e, t) over the row: head by head, or at once where heads are narrow
  template <typename Work> void over_heads(bool both, const Work& work) {
    if (width >= narrow) {
      for (int64_t h = 0; h < call.heads; ++h)
        work(h * width, (h + 1) * width, OfHead<S>{e[h]}, OfHead<S>{t[h]});
      return;
    }
    spread(e.data(), call.heads, width, e_spread.data());
    if (both) spread(t.data(), call.heads, width, t_spread.data());
    work(0, call.dim, static_cast<const S*>(e_spread.data()),
         static_cast<const S*>(t_spread.data()));
  }

  void forward(int64_t row, const S* __restrict x, S* __restrict y) {
    S* s = call.heads_kept + row * call.heads;
    const S *__restrict a = alpha, *__restrict b = beta, *__restrict c = gamma;
    head_sums<S>(call.heads, width, [=](auto v, int64_t i) { return v.load(x + i) * v.load(b + i); },
                 s);
#pragma omp simd
    for (int64_t h = 0; h < call.heads; ++h) s[h] = fast_tanh(s[h]);
    set_coefficients(row);
    const S r = call.rstd[row] = inverse_rms(x, call);
    over_heads(false, [=](int64_t begin, int64_t end, auto own, auto) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) y[i] = (own[i] * a[i] + c[i]) * (x[i] * r);
    });
  }

  // With u = x r, c = e α + γ, ds = Σ_head g u α:
  // dx = r (g c − u mean(g c u)) + m ds (1 − s²) β; the mean comes from Σ g x α and Σ g x γ.
  // `total` is [3, dim], for α, β, γ.
  void backward(int64_t row, const S* __restrict x, const S* __restrict g, S* __restrict dx,
                S* __restrict total) {
    const S *__restrict a = alpha, *__restrict b = beta, *__restrict c = gamma;
    const S r = call.rstd[row], *s = call.heads_kept + row * call.heads;
    set_coefficients(row);
    head_sums<S>(call.heads, width,
                 [=](auto v, int64_t i) { return v.load(g + i) * v.load(x + i) * v.load(a + i); },
                 t.data());
    S all = sum<S>(0, call.dim, [=](auto v, int64_t i) {
      return v.load(g + i) * v.load(x + i) * v.load(c + i);
    });
    for (int64_t h = 0; h < call.heads; ++h) {
      all += e[h] * t[h];
      t[h] *= r * kept(row, h) * (1 - s[h] * s[h]);
    }
    const S mean = r * all / static_cast<S>(call.dim);  // r³ would underflow for large x
    S *__restrict dalpha = total, *__restrict dbeta = total + call.dim;
    S* __restrict dgamma = total + 2 * call.dim;
    over_heads(true, [=](int64_t begin, int64_t end, auto own, auto slope) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        const S gr = g[i] * r, gu = gr * x[i];
        dalpha[i] += own[i] * gu;
        dbeta[i] += slope[i] * x[i];
        dgamma[i] += gu;
        dx[i] = (gr * (own[i] * a[i] + c[i]) - r * (x[i] * r * mean)) + slope[i] * b[i];
      }
    });
  }

  static void finish(const Call<S>& call, const S* total, S* gradients) {
    std::copy(total, total + 3 * call.dim, gradients);
  }
};

EXPORT_NORM(SeeDNorm)
