// The statistic of norms that divide by the root mean square.

#pragma once

#include <cmath>

#include "norm.h"

// 1/sqrt(mean(x²) + eps) of one row
template <typename S> S inverse_rms(const S* x, const Call<S>& call) {
  const S squares = sum<S>(call.dim, [=](auto v, int64_t i) {
    return v.load(x + i) * v.load(x + i);
  });
  return 1 / std::sqrt(squares / static_cast<S>(call.dim) + static_cast<S>(call.eps));
}
