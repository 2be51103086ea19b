// Derf: y = w ⊙ erf(a x + s) + b.

#include "elementwise.h"

// A fraction of polynomials; relative error below 5e-7, ±1 beyond ±3.95.
inline float fast_erf(float v) {
  const float u = v * v;
  const float above =
      1.12837914f +
      u * (0.191539897f + u * (0.0528736139f +
                               u * (0.00380757366f + u * (0.000284651312f + u * 2.025698e-06f))));
  const float below =
      1.0f +
      u * (0.503080495f + u * (0.114554902f +
                               u * (0.0150539523f + u * (0.0011705385f + u * 3.78276862e-05f))));
  const float near = v * above / below;
  return std::abs(v) > 3.95f ? std::copysign(1.0f, v) : near;  // NaN stays
}
inline double fast_erf(double v) { return std::erf(v); }

// exp(−u) = 2ⁿ exp(f) for u ≥ 0, with f = n ln 2 − u small enough for a short series; 0 from 87 on,
// where float has no normal numbers left. Relative error below 2e-7, and u's own in large ones.
inline float fast_exp_minus(float u) {
  constexpr float ln2 = 0.693147181f, inverse = 1.44269504f;
  constexpr float round = 12582912.0f;  // 1.5 · 2²³: adding it leaves whole numbers, in the last bits
  const float shifted = round - u * inverse;
  const float f = (round - shifted) * ln2 - u;
  const float series =
      1.0f +
      f * (0.9999997f +
           f * (0.49998894f + f * (0.16667575f + f * (0.041915383f + f * 0.008297655f))));
  uint32_t bits;
  __builtin_memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127) << 23;
  float power;
  __builtin_memcpy(&power, &bits, sizeof power);
  return u > 87.0f ? 0.0f : power * series;
}
inline double fast_exp_minus(double u) { return std::exp(-u); }

struct Derf : LearnedLine<2> {
  template <typename S> static S value(S z) { return fast_erf(z); }
  template <typename S> static S slope(S z, S) {
    return static_cast<S>(1.1283791670955126) * fast_exp_minus(z * z);  // 2/√π
  }
};

EXPORT_ELEMENTWISE(Derf)
