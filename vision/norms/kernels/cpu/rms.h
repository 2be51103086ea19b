// The statistic of norms that divide by the root mean square.

#pragma once

#include <cmath>

#include "norm.h"

// 1/sqrt(mean(x²) + eps) of one row, from the sum of squares
template <typename S> S inverse_rms(S squares, const Call<S>& call) {
  return 1 / std::sqrt(squares / static_cast<S>(call.dim) + static_cast<S>(call.eps));
}
