// DyISRU: y = w ⊙ √D x/sqrt(x² + c²) + b, which is √D z/sqrt(z² + 1) with z = x/|c|.

#include "elementwise.h"
#include "isru.h"

struct DyISRU : InverseSquareRootUnit {
  static constexpr int scalars = 1;
  template <typename S> static Line<S> line(const Call<S>& call) {
    return {1 / std::abs(call.parameters[0][0]), S{0}, std::sqrt(static_cast<S>(call.dim))};
  }
  template <typename S> static void chain(const Call<S>& call, S da, S, S* gradients) {
    const S c = call.parameters[0][0];
    gradients[0] = -da / (c * std::abs(c));
  }
};

EXPORT_ELEMENTWISE(DyISRU)
