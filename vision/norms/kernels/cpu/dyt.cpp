// DyT: y = w ⊙ tanh(a x) + b.

#include "elementwise.h"

struct DyT : LearnedLine<1> {
  template <typename S> static S value(S z) { return fast_tanh(z); }
  template <typename S> static S slope(S, S value) { return 1 - value * value; }
};

EXPORT_ELEMENTWISE(DyT)
