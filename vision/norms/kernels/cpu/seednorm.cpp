// SeeDNorm: y = [e α + γ] ⊙ x r with r = 1/RMS(x) and per head e = s m, s = tanh(x·βᵀ); m is 1, or
// with dropout of the coefficient 0 or 1/keep.

#include "norm.h"
#include "rms.h"

template <typename S> struct SeeDNorm {
  static constexpr int vectors = 3;
  static constexpr int64_t kLong = 8192;
  const Call<S>& call;
  const S *alpha, *beta, *gamma;
  const HeadLayout<S> layout;
  const S undropped;  // what the coefficient of a head that stays is multiplied with
  Scratch<S> e, t;    // [heads] and a vector more

  explicit SeeDNorm(const Call<S>& given)
      : call(given), alpha(call.parameters[0]), beta(call.parameters[1]), gamma(call.parameters[2]),
        layout(call.heads, call.dim / call.heads), undropped(static_cast<S>(1 / call.keep)),
        e(call.heads + kBytes / sizeof(S)), t(call.heads + kBytes / sizeof(S)) {}

  // numbers[h] m of the heads from h on
  template <typename Kind, typename Numbers>
  [[gnu::always_inline]] Numbers dropped(Kind v, int64_t row, int64_t h, Numbers numbers) const {
    if (call.mask == nullptr) return numbers;
    return v.where(call.mask + row * call.heads + h, numbers * undropped);
  }

  void forward(int64_t row, const S* x, S* y) {
    S *s = call.heads_kept + row * call.heads, *own = e.data();
    const S *a = alpha, *b = beta, *c = gamma;
    S squares;
    if (layout.width < static_cast<int64_t>(16 / sizeof(S)) || call.dim > kLong) {
      // heads are summed one by one: squares in vectors, by a pass of their own, take less; and
      // that of a long row has several sums, where one alone would lose a digit
      head_sums<S>(
          call.heads, layout.width,
          [=](auto v, int64_t i) { return v.load(x + i) * v.load(b + i); }, s);
      squares = sum<S>(call.dim, [=](auto v, int64_t i) { return v.load(x + i) * v.load(x + i); });
    } else {
      SecondSum<S> beside;
      head_sums<S>(
          call.heads, layout.width,
          [&](auto v, int64_t i) {
            const auto x_i = v.load(x + i);
            beside.add(v, x_i * x_i);
            return x_i * v.load(b + i);
          },
          s);
      squares = beside.total();
    }
#pragma omp simd
    for (int64_t h = 0; h < call.heads; ++h) s[h] = fast_tanh(s[h]);
    each<S>(call.heads, [=](auto v, int64_t h) {
      v.store(own + h, dropped(v, row, h, v.load(s + h)));
    });
    const S r = call.rstd[row] = inverse_rms(squares, call);
    layout.each_element([=](auto v, int64_t i, auto of) {
      v.store(y + i, (of(own) * v.load(a + i) + v.load(c + i)) * (v.load(x + i) * r));
    });
  }

  // With u = x r, c = e α + γ, ds = Σ_head g u α:
  // dx = r (g c − u mean(g c u)) + m ds (1 − s²) β; the mean comes from Σ g x α and Σ g x γ.
  // `sums` is for α, β, γ.
  void backward(int64_t row, const S* x, const S* g, S* dx, S* sums) {
    const S *a = alpha, *b = beta, *c = gamma, *s = call.heads_kept + row * call.heads;
    const S r = call.rstd[row];
    S *own = e.data(), *slope = t.data();
    SecondSum<S> undynamic;  // Σ g x γ
    head_sums<S>(
        call.heads, layout.width,
        [&](auto v, int64_t i) {
          const auto gx = v.load(g + i) * v.load(x + i);
          undynamic.add(v, gx * v.load(c + i));
          return gx * v.load(a + i);
        },
        slope);
    SecondSum<S> dynamic;  // Σ g x e α
    each<S>(call.heads, [&](auto v, int64_t h) {
      const auto s_h = v.load(s + h), sum_h = v.load(slope + h), own_h = dropped(v, row, h, s_h);
      dynamic.add(v, own_h * sum_h);
      v.store(own + h, own_h);
      v.store(slope + h, dropped(v, row, h, sum_h) * (r * (1 - s_h * s_h)));
    });
    const S all = undynamic.total() + dynamic.total();
    const S mean = r * all / static_cast<S>(call.dim);  // r³ would underflow for large x
    S *dalpha = sums, *dbeta = dalpha + call.step(), *dgamma = dbeta + call.step();
    layout.each_element([=](auto v, int64_t i, auto of) {
      const auto x_i = v.load(x + i), gr = v.load(g + i) * r, gu = gr * x_i;
      const auto own_i = of(own), slope_i = of(slope);
      v.store(dalpha + i, v.load(dalpha + i) + own_i * gu);
      v.store(dbeta + i, v.load(dbeta + i) + slope_i * x_i);
      v.store(dgamma + i, v.load(dgamma + i) + gu);
      const auto through_rms = gr * (own_i * v.load(a + i) + v.load(c + i)) - r * (x_i * r * mean);
      v.store(dx + i, through_rms + slope_i * v.load(b + i));
    });
  }

  static void finish(const Call<S>& call, const S* total, S* gradients) {
    for (int64_t k = 0; k < vectors; ++k)
      std::copy(total + k * call.step(), total + k * call.step() + call.dim,
                gradients + k * call.dim);
  }
};

EXPORT_NORM(SeeDNorm)
