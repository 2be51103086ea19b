// f(z) = z/sqrt(z² + 1)

#pragma once

#include <cmath>

// Squares of larger numbers overflow; f is ±1 there. Infinity counts as such a number, NaN stays.
template <typename S> S bounded(S z) {
  constexpr S limit = sizeof(S) == 4 ? S(1e18) : S(1e150);
  z = z > limit ? limit : z;
  return z < -limit ? -limit : z;
}

struct InverseSquareRootUnit {
  template <typename S> static S value(S z) {
    z = bounded(z);
    return z / std::sqrt(z * z + 1);
  }
  template <typename S> static S slope(S z, S) {  // (z² + 1)^(-3/2)
    z = bounded(z);
    const S root = 1 / std::sqrt(z * z + 1);
    return root * root * root;
  }
};
