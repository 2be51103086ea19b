// Derf: y = w ⊙ erf(a x + s) + b.

#include "elementwise.h"

// A fraction of polynomials; relative error below 5e-7, ±1 beyond ±3.95.
inline float fast_erf(float v) {
  float z = v > 3.95f ? 3.95f : v;  // NaN passes comparisons
  z = z < -3.95f ? -3.95f : z;
  const float u = z * z;
  const float above =
      1.12837914f +
      u * (0.191539897f + u * (0.0528736139f +
                               u * (0.00380757366f + u * (0.000284651312f + u * 2.025698e-06f))));
  const float below =
      1.0f +
      u * (0.503080495f + u * (0.114554902f +
                               u * (0.0150539523f + u * (0.0011705385f + u * 3.78276862e-05f))));
  float result = z * above / below;
  result = v > 3.95f ? 1.0f : result;
  return v < -3.95f ? -1.0f : result;
}
inline double fast_erf(double v) { return std::erf(v); }

// exp(−u) = 2ⁿ exp(f) for u ≥ 0, with f = −u − n ln 2 small enough for a short series; 0 from 87 on,
// where float has no normal numbers left. Relative error below 2e-7.
inline float fast_exp_minus(float u) {
  constexpr float ln2_high = 0.693145752f, ln2_low = 1.42860677e-6f, inverse = 1.44269504f;
  const float v = u > 87.0f ? -87.0f : -u;
  const float steps = std::nearbyint(v * inverse);
  const float f = (v - steps * ln2_high) - steps * ln2_low;
  float series = 1.0f / 5040;
  series = series * f + 1.0f / 720;
  series = series * f + 1.0f / 120;
  series = series * f + 1.0f / 24;
  series = series * f + 1.0f / 6;
  series = series * f + 0.5f;
  series = series * f + 1.0f;
  series = series * f + 1.0f;
  const int32_t bits = (static_cast<int32_t>(steps) + 127) << 23;
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
