// Which coefficients dropout keeps: element i of the mask is 1 where number i of the generator
// Philox 4x32 with 7 rounds (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011) with
// the given key is below keep · 2³². A number depends on the key and on i alone, so threads cannot
// change it, and it costs a fraction of drawing from torch's generator one by one.

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstdint>

namespace {

// Blocks of four numbers that are computed side by side: as many as hide the latency of the rounds,
// each of which waits for the one before.
constexpr int kLanes = 32;
constexpr int kGroup = 16;  // of so many blocks the first numbers come first, then the second ones

// The halves of c · factor.
#ifdef __AVX512F__  // the compiler would multiply 64 by 64 bits
inline void multiply(const uint32_t* c, uint32_t factor, uint32_t* high, uint32_t* low) {
  const __m512i by = _mm512_set1_epi64(factor);
  for (int i = 0; i < kLanes; i += 16) {
    const __m512i all = _mm512_loadu_si512(c + i), even = _mm512_mul_epu32(all, by),
                  odd = _mm512_mul_epu32(_mm512_srli_epi64(all, 32), by);
    const __m512i up = _mm512_slli_epi64(odd, 32), down = _mm512_srli_epi64(even, 32);
    _mm512_storeu_si512(high + i, _mm512_mask_blend_epi32(0xaaaa, down, odd));
    _mm512_storeu_si512(low + i, _mm512_mask_blend_epi32(0xaaaa, even, up));
  }
}
#else
inline void multiply(const uint32_t* c, uint32_t factor, uint32_t* high, uint32_t* low) {
#pragma omp simd
  for (int i = 0; i < kLanes; ++i) {
    const uint64_t product = uint64_t{factor} * c[i];
    high[i] = static_cast<uint32_t>(product >> 32);
    low[i] = static_cast<uint32_t>(product);
  }
}
#endif

void numbers(uint64_t first, uint64_t key, uint32_t* out) {  // [kLanes / kGroup, 4, kGroup]
  uint32_t c[4][kLanes];
  for (int i = 0; i < kLanes; ++i) {
    c[0][i] = static_cast<uint32_t>(first + i);
    c[1][i] = static_cast<uint32_t>((first + i) >> 32);
    c[2][i] = c[3][i] = 0;
  }
  uint32_t low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 7; ++round) {
    uint32_t high_0[kLanes], high_2[kLanes], low_0[kLanes], low_2[kLanes];
    multiply(c[0], 0xD2511F53u, high_0, low_0);
    multiply(c[2], 0xCD9E8D57u, high_2, low_2);
#pragma omp simd
    for (int i = 0; i < kLanes; ++i) {
      c[0][i] = high_2[i] ^ c[1][i] ^ low;
      c[2][i] = high_0[i] ^ c[3][i] ^ high;
      c[1][i] = low_2[i];
      c[3][i] = low_0[i];
    }
    low += 0x9E3779B9u;
    high += 0xBB67AE85u;
  }
  for (int group = 0; group < kLanes; group += kGroup)
    for (int k = 0; k < 4; ++k, out += kGroup)
      std::copy(c[k] + group, c[k] + group + kGroup, out);
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
