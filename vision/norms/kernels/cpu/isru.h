// f(z) = z/sqrt(z² + 1)

#pragma once

#include <cmath>

struct InverseSquareRootUnit {
  template <typename S> static S inverse_root(S z) { return 1 / std::sqrt(z * z + 1); }
  template <typename S> static S value(S z) {
    constexpr S limit = sizeof(S) == 4 ? S(1e18) : S(1e150);  // squares of larger numbers overflow
    const S near = z * inverse_root(z);
    return std::abs(z) > limit ? std::copysign(S{1}, z) : near;  // NaN stays
  }
  template <typename S> static S slope(S z, S) {  // (z² + 1)^(-3/2)
    const S root = inverse_root(z);
    return root * root * root;
  }
};
