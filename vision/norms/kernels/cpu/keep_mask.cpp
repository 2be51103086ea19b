// Which coefficients dropout keeps: element i of the mask is 1 where number i of the generator
// Philox 4x32 with 7 rounds (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011) with
// the given key is below keep · 2³². A number depends on the key and on i alone, so threads cannot
// change it, and it costs a fraction of drawing from torch's generator one by one.

#include <algorithm>
#include <cstdint>

namespace {

constexpr int kLanes = 16;  // blocks of four numbers that are computed side by side

void numbers(uint64_t first, uint64_t key, uint32_t* out) {  // [4, kLanes]
  uint32_t c[4][kLanes];
  for (int i = 0; i < kLanes; ++i) {
    c[0][i] = static_cast<uint32_t>(first + i);
    c[1][i] = static_cast<uint32_t>((first + i) >> 32);
    c[2][i] = c[3][i] = 0;
  }
  uint32_t low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 7; ++round) {
#pragma omp simd
    for (int i = 0; i < kLanes; ++i) {
      const uint64_t a = uint64_t{0xD2511F53u} * c[0][i], b = uint64_t{0xCD9E8D57u} * c[2][i];
      c[0][i] = static_cast<uint32_t>(b >> 32) ^ c[1][i] ^ low;
      c[2][i] = static_cast<uint32_t>(a >> 32) ^ c[3][i] ^ high;
      c[1][i] = static_cast<uint32_t>(b);
      c[3][i] = static_cast<uint32_t>(a);
    }
    low += 0x9E3779B9u;
    high += 0xBB67AE85u;
  }
  for (int k = 0; k < 4; ++k) std::copy(c[k], c[k] + kLanes, out + k * kLanes);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void keep_mask(uint8_t* mask, int64_t count,
                                                                 uint64_t key, double keep,
                                                                 int threads) {
  constexpr int64_t batch = 4 * kLanes;
  const uint32_t limit = static_cast<uint32_t>(std::min(keep * 4294967296.0, 4294967295.0));
  const int64_t batches = (count + batch - 1) / batch;
#pragma omp parallel for schedule(static) num_threads(count < (1 << 15) ? 1 : threads)
  for (int64_t n = 0; n < batches; ++n) {
    uint32_t drawn[batch];
    uint8_t kept[batch];
    numbers(static_cast<uint64_t>(n) * kLanes, key, drawn);
#pragma omp simd
    for (int64_t i = 0; i < batch; ++i) kept[i] = drawn[i] < limit;
    std::copy(kept, kept + std::min(batch, count - n * batch), mask + n * batch);
  }
}
