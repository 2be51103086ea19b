// What the CPU kernels compute with: half precision, SIMD vectors, loops and sums over a row.
//
// Nothing here includes libtorch, so a kernel is built in seconds. Arithmetic is in float for half
// precision and float, in double for double.

#pragma once

#ifdef __F16C__
#include <immintrin.h>
#endif

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <vector>

struct BFloat16 { uint16_t bits; };

inline float widen(BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}
inline float widen(_Float16 value) { return static_cast<float>(value); }

inline void narrow(float value, BFloat16& out) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t nearest_even = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;  // rounding could carry it to infinity
  out.bits = static_cast<uint16_t>(is_nan ? 0x7fc0u : nearest_even);
}
inline void narrow(float value, _Float16& out) { out = static_cast<_Float16>(value); }

// A row in the precision of the arithmetic: the row itself, or its copy in `buffer`.
template <typename S> const S* open(const S* row, S*, int64_t) { return row; }
template <typename T, typename S> const S* open(const T* row, S* buffer, int64_t dim) {
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) buffer[i] = widen(row[i]);
  return buffer;
}

// Where to compute a row's result, and the step that writes it into the tensor.
template <typename S> S* place(S* row, S*) { return row; }
template <typename T, typename S> S* place(T*, S* buffer) { return buffer; }
template <typename S> void close(const S*, S*, int64_t) {}
template <typename T, typename S> void close(const S* buffer, T* row, int64_t dim) {
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) narrow(buffer[i], row[i]);
}

#ifdef __F16C__  // the compiler would convert one number at a time
inline const float* open(const _Float16* row, float* buffer, int64_t dim) {
  int64_t i = 0;
  for (; i + 8 <= dim; i += 8)
    _mm256_storeu_ps(
        buffer + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row + i))));
  for (; i < dim; ++i) buffer[i] = widen(row[i]);
  return buffer;
}
inline void close(const float* buffer, _Float16* row, int64_t dim) {
  int64_t i = 0;
  for (; i + 8 <= dim; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(row + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(buffer + i), _MM_FROUND_TO_NEAREST_INT));
  for (; i < dim; ++i) narrow(buffer[i], row[i]);
}
#endif

#ifdef __AVX512F__
constexpr int kBytes = 64;
#else
constexpr int kBytes = 32;
#endif

// Memory for `size` numbers, on a boundary of vectors: a vector that crosses one costs two accesses.
template <typename S> class Scratch {
 public:
  Scratch() = default;
  explicit Scratch(int64_t size) { reserve(size); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(memory); }
  // Room for `size` numbers; what was in it is lost.
  void reserve(int64_t size) {
    if (size <= room) return;
    std::free(memory);
    const size_t bytes = (size * sizeof(S) + 63) / 64 * 64;
    memory = static_cast<S*>(std::aligned_alloc(64, bytes));
    if (memory == nullptr) std::abort();  // an exception could not leave a parallel region
    room = size;
  }
  S* data() { return memory; }
  S& operator[](int64_t i) { return memory[i]; }

 private:
  S* memory = nullptr;
  int64_t room = 0;
};

// An integer as wide as S.
template <typename S> using Index = std::conditional_t<sizeof(S) == 4, int32_t, int64_t>;

// A SIMD vector.
template <typename S, int bytes> struct Vector {
  static constexpr int size = bytes / sizeof(S);
  typedef S type __attribute__((vector_size(bytes)));
  typedef S unaligned __attribute__((vector_size(bytes), aligned(sizeof(S))));
  static type load(const S* from) { return *reinterpret_cast<const unaligned*>(from); }
  static void store(S* to, type value) { *reinterpret_cast<unaligned*>(to) = value; }
  static type all(S value) { return value - type{}; }
  // the value where `kept` is 1, 0 where it is 0
  static type where(const uint8_t* kept, type value) {
    typedef uint8_t Bytes __attribute__((vector_size(size)));
    typedef Index<S> Lanes __attribute__((vector_size(bytes)));
    Bytes mask;
    std::memcpy(&mask, kept, size);
    return __builtin_convertvector(mask, Lanes) != 0 ? value : type{};
  }
  // the sum of its parts of 16 bytes
  static auto quarter(type v) {
    if constexpr (bytes == 16) {
      return v;
    } else {
      using Half = Vector<S, bytes / 2>;
      typename Half::type parts[2];
      std::memcpy(parts, &v, bytes);
      return Half::quarter(parts[0] + parts[1]);
    }
  }
  static S sum(type v) {
    static_assert(bytes == 16, "take its quarter");
    if constexpr (size == 4) return (v[0] + v[1]) + (v[2] + v[3]);
    return v[0] + v[1];
  }
};
// One element, where a vector does not fit.
template <typename S> struct One {
  typedef S type;
  static S load(const S* from) { return *from; }
  static void store(S* to, S value) { *to = value; }
  static S all(S value) { return value; }
  static S where(const uint8_t* kept, S value) { return *kept ? value : S{0}; }
};

// work(kind, i) for the elements of a row, kind being a Vector or, at the end, One.
template <typename S, typename Work>
[[gnu::always_inline]] inline void each(int64_t end, const Work& work) {
  using V = Vector<S, kBytes>;
  int64_t i = 0;
  for (; i + V::size <= end; i += V::size) work(V{}, i);
  for (; i < end; ++i) work(One<S>{}, i);
}

// The sum over `count` elements from i on of what term(kind, i) returns; kind is a Vector or One. It is
// left as a vector of 16 bytes, whose elements are to be added. The order of additions depends on
// `count` alone, a number or, which makes short sums faster, a constant of the compiler.
template <typename S, int bytes = kBytes, typename Count, typename Term>
[[gnu::always_inline]] inline typename Vector<S, 16>::type partial_sum(int64_t i, Count count,
                                                                      const Term& term) {
  using V = Vector<S, bytes>;
  if constexpr (bytes == kBytes) {
    if (count < V::size) return partial_sum<S, bytes / 2>(i, count, term);  // a narrow head
  }
  typename V::type total{};
  int64_t done = 0;
  if constexpr (bytes == kBytes) {
    if (4 * V::size <= count) {  // several sums hide the latency of an addition
      typename V::type second{}, third{}, fourth{};
      for (; done + 4 * V::size <= count; done += 4 * V::size) {
        total += term(V{}, i + done);
        second += term(V{}, i + done + V::size);
        third += term(V{}, i + done + 2 * V::size);
        fourth += term(V{}, i + done + 3 * V::size);
      }
      total = (total + second) + (third + fourth);
    }
  }
  for (; done + V::size <= count; done += V::size) total += term(V{}, i + done);
  auto result = V::quarter(total);
  if (done == count) return result;
  if constexpr (bytes > 16) {
    result += partial_sum<S, bytes / 2>(i + done, count - done, term);
  } else {
    for (; done < count; ++done) result[0] += term(One<S>{}, i + done);
  }
  return result;
}

// A second sum over a row, in the pass of another: add(kind, term) in that one's term(kind, i).
template <typename S> class SecondSum {
 public:
  template <int bytes>
  [[gnu::always_inline]] void add(Vector<S, bytes>, typename Vector<S, bytes>::type term) {
    if constexpr (bytes == kBytes) {
      vectors += term;
    } else if constexpr (bytes == 16) {
      quarters += term;
    } else {
      halves += term;
    }
  }
  [[gnu::always_inline]] void add(One<S>, S term) { ones += term; }
  S total() const {
    const auto left = Vector<S, kBytes / 2>::quarter(halves) + quarters;
    return Vector<S, 16>::sum(Vector<S, kBytes>::quarter(vectors) + left) + ones;
  }

 private:
  typename Vector<S, kBytes>::type vectors{};
  typename Vector<S, kBytes / 2>::type halves{};
  typename Vector<S, 16>::type quarters{};
  S ones = 0;
};

// `partial_sum` as one number.
template <typename S, typename Term> S sum(int64_t count, const Term& term) {
  return Vector<S, 16>::sum(partial_sum<S>(0, count, term));
}

// Sums of pairs: of a and then of b.
inline Vector<float, 16>::type pairs(Vector<float, 16>::type a, Vector<float, 16>::type b) {
  typedef int32_t Lanes __attribute__((vector_size(16)));
  return __builtin_shuffle(a, b, Lanes{0, 2, 4, 6}) + __builtin_shuffle(a, b, Lanes{1, 3, 5, 7});
}

// out[h] = the sum over head h of a row. Sums within a vector are taken of four heads at a time.
template <typename S, typename Width, typename Term>
[[gnu::always_inline]] inline void sum_heads(int64_t heads, Width width, const Term& term, S* out) {
  int64_t h = 0;
  const auto part = [&](int64_t head) { return partial_sum<S>(head * width, width, term); };
  if constexpr (sizeof(S) == 4) {
    for (; h + 4 <= heads; h += 4) {
      const auto first = pairs(part(h), part(h + 1));
      Vector<S, 16>::store(out + h, pairs(first, pairs(part(h + 2), part(h + 3))));
    }
  }
  for (; h < heads; ++h) out[h] = Vector<S, 16>::sum(part(h));
}

template <int64_t width> using Width = std::integral_constant<int64_t, width>;

template <typename S, typename Term>
void head_sums(int64_t heads, int64_t width, const Term& term, S* out) {
  switch (width) {  // 16 heads in the usual models
    case 12: return sum_heads<S>(heads, Width<12>{}, term, out);
    case 24: return sum_heads<S>(heads, Width<24>{}, term, out);
    case 48: return sum_heads<S>(heads, Width<48>{}, term, out);
    case 64: return sum_heads<S>(heads, Width<64>{}, term, out);
    case 72: return sum_heads<S>(heads, Width<72>{}, term, out);
    default: return sum_heads<S>(heads, width, term, out);
  }
}

// tanh in float, a fraction of polynomials, which vectorizes; the library's tanhf would not, and one
// call per head would cost as much as the rest of a row. Relative error below 4e-7. Beyond ±9 it is
// exactly ±1, so that 1 − tanh² is 0 and no large x meets a slope that is only nearly 0. One choice
// at the end, where a fraction that overflowed is dropped too, is cheaper than to limit v before.
inline float fast_tanh(float v) {
  const float u = v * v;
  const float above =
      0.999999979f +
      u * (0.133778019f + u * (0.00349175603f + u * (2.05458612e-05f + u * 1.32666775e-08f)));
  const float below =
      1.0f + u * (0.467111167f + u * (0.0258624124f + u * (0.00032793613f + u * 7.74063357e-07f)));
  const float near = v * above / below;
  return std::abs(v) > 9.0f ? std::copysign(1.0f, v) : near;  // NaN stays
}
inline double fast_tanh(double v) { return std::tanh(v); }

// A row of `heads` equal parts of `width` elements: gives every element the number of its head.
template <typename S> struct HeadLayout {
  using V = Vector<S, kBytes>;
  int64_t heads, width;
  std::vector<int64_t> first;  // the first head in each vector of the row ...
  std::vector<Index<S>> lanes;    // ... and which one after it each of its elements belongs to

  HeadLayout(int64_t heads, int64_t width) : heads(heads), width(width) {
    if (heads == 1) return;
    const int64_t vectors = heads * width / V::size;
    const bool few = heads <= V::size;  // then one vector holds all numbers
    lanes.reserve(vectors * V::size);
    first.reserve(vectors);
    for (int64_t i = 0, head = 0, end = width; i < vectors * V::size; ++i) {
      if (i == end) ++head, end += width;
      if (i % V::size == 0) first.push_back(few ? 0 : head);
      lanes.push_back(static_cast<Index<S>>(head - first.back()));
    }
  }

  // work(kind, i, of) for all elements of the row; of(numbers) gives each element the number of its
  // head. `numbers` has room for a vector more.
  template <typename Work>
  [[gnu::always_inline]] inline void each_element(const Work& work) const {
    if (heads == 1) {
      each<S>(width, [&](auto v, int64_t i) {
        work(v, i, [&](const S* numbers) { return v.all(numbers[0]); });
      });
      return;
    }
    int64_t i = 0;
    for (const int64_t head : first) {
      typedef Index<S> Lanes __attribute__((vector_size(kBytes)));
      Lanes lane;
      std::memcpy(&lane, lanes.data() + i, kBytes);
      work(V{}, i,
           [&](const S* numbers) { return __builtin_shuffle(V::load(numbers + head), lane); });
      i += V::size;
    }
    for (; i < heads * width; ++i)
      work(One<S>{}, i, [&](const S* numbers) { return numbers[i / width]; });
  }
};
