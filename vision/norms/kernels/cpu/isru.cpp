// ISRU: y = w ⊙ z/sqrt(z² + 1) + b with z = a x + s.

#include "elementwise.h"
#include "isru.h"

struct ISRU : LearnedLine<2>, InverseSquareRootUnit {};

EXPORT_ELEMENTWISE(ISRU)
