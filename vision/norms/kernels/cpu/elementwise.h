// Elementwise norms: y = w ⊙ G f(z) + b with z = a x + c and numbers a, c, G per layer.
//
// A formula has f and its slope, and how a, c and G come from the learned scalars:
//
//   template <typename S> static S value(S z)
//   template <typename S> static S slope(S z, S value)       f'(z)
//   static constexpr int scalars                             [1] each, before w and b
//   template <typename S> static Line<S> line(const Call<S>& call)
//   template <typename S> static void chain(const Call<S>& call, S da, S dc, S* gradients)
//
// The backward computes f once more: it keeps nothing but x.

#pragma once

#include "norm.h"

template <typename S> struct Line { S a, c, gain; };

template <typename S, typename Formula> struct Elementwise {
  // sums over the rows of g f and of g per channel; in the third, of the scalars' gradients
  static constexpr int vectors = 3;
  static constexpr bool shifted = Formula::scalars > 1;
  const Call<S>& call;
  const Line<S> line;
  explicit Elementwise(const Call<S>& given) : call(given), line(Formula::line(given)) {}

  void forward(int64_t, const S* __restrict x, S* __restrict y) {
    const S *__restrict w = call.parameters[Formula::scalars], *__restrict b = w_next();
    const S a = line.a, c = line.c, gain = line.gain;
#pragma omp simd
    for (int64_t i = 0; i < call.dim; ++i)
      y[i] = w[i] * (gain * Formula::value(a * x[i] + c)) + b[i];
  }

  void backward(int64_t, const S* __restrict x, const S* __restrict g, S* __restrict dx,
                S* __restrict total) {
    const S* __restrict w = call.parameters[Formula::scalars];
    const S a = line.a, c = line.c, gain = line.gain;
    S *__restrict dw = total, *__restrict db = dw + call.step();
    S da = 0, dc = 0;
#pragma omp simd reduction(+ : da, dc)
    for (int64_t i = 0; i < call.dim; ++i) {
      const S z = a * x[i] + c, value = Formula::value(z);
      const S slope = w[i] * g[i] * (gain * Formula::slope(z, value));
      dw[i] += g[i] * (gain * value);
      db[i] += g[i];
      da += slope * x[i];
      if (shifted) dc += slope;
      dx[i] = a * slope;
    }
    S* const scalars = db + call.step();
    scalars[0] += da;
    scalars[1] += dc;
  }

  static void finish(const Call<S>& call, const S* total, S* gradients) {
    const S *db = total + call.step(), *scalars = db + call.step();
    Formula::chain(call, scalars[0], scalars[1], gradients);
    S* const dw = gradients + Formula::scalars;
    std::copy(total, total + call.dim, dw);
    std::copy(db, db + call.dim, dw + call.dim);
  }

 private:
  const S* w_next() const { return call.parameters[Formula::scalars + 1]; }
};

// A formula of z = a x + c with a learned a, and c where it has two scalars.
template <int count> struct LearnedLine {
  static constexpr int scalars = count;
  template <typename S> static Line<S> line(const Call<S>& call) {
    return {call.parameters[0][0], count > 1 ? call.parameters[1][0] : S{0}, S{1}};
  }
  template <typename S> static void chain(const Call<S>&, S da, S dc, S* gradients) {
    gradients[0] = da;
    if (count > 1) gradients[1] = dc;
  }
};

#define EXPORT_ELEMENTWISE(FORMULA)                                                                \
  template <typename S> using FORMULA##Norm = Elementwise<S, FORMULA>;                             \
  EXPORT_NORM(FORMULA##Norm)
