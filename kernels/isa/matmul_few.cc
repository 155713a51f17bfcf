// Products with a few rows, limited by memory: each element of b is read once, in place. Depthwise windows.

#include "functions.h"
#include "vector.h"

namespace shareflow {
namespace SHAREFLOW_ISA {
namespace {

#if defined(__AVX2__)
using Lane = Vector;
#else
using Lane = Word;  // SSE2 has no 64-bit multiplication: made of 32-bit ones it is slower than one at a time
#endif
constexpr int kWide = Lanes<Lane>::count;

// body(T{}, i) as `each`, but on Lane.
template <class Body>
inline void each_lane(int64_t end, const Body& body) {
  int64_t i = 0;
  for (; i + kWide <= end; i += kWide) body(Lane{}, i);
  for (; i < end; ++i) body(Word{}, i);
}

constexpr int kRows = 8;  // of b, met by one pass over c

template <int kM, int kK>
void add_rows(const Word* a, int64_t a_pitch, const Word* b, int64_t b_pitch, int64_t n, Word* c,
              int64_t c_pitch) {
  each_lane(n, [=](auto kind, int64_t j) {
    using T = decltype(kind);
    T sum[kM];
    for (int i = 0; i < kM; ++i) sum[i] = load<T>(c + i * c_pitch + j);
    for (int k = 0; k < kK; ++k) {
      const T row = load<T>(b + k * b_pitch + j);
      for (int i = 0; i < kM; ++i) sum[i] += fill<T>(a[i * a_pitch + k]) * row;
    }
    for (int i = 0; i < kM; ++i) store<T>(c + i * c_pitch + j, sum[i]);
  });
}

template <int kM>
void rows_of(const Word* a, int64_t k, const Word* b, int64_t b_pitch, int64_t n, Word* c, int64_t c_pitch) {
  for (int i = 0; i < kM; ++i) std::memset(c + i * c_pitch, 0, n * sizeof(Word));
  int64_t done = 0;
  for (; done + kRows <= k; done += kRows)
    add_rows<kM, kRows>(a + done, k, b + done * b_pitch, b_pitch, n, c, c_pitch);
  for (; done < k; ++done) add_rows<kM, 1>(a + done, k, b + done * b_pitch, b_pitch, n, c, c_pitch);
}

template <int kM, int kN>
void dots_of(const Word* a, int64_t k, const Word* b, int64_t b_pitch, Word* c, int64_t c_pitch) {
  Vector sum[kM][kN] = {};
  int64_t done = 0;
  for (; done + kLanes <= k; done += kLanes)
    for (int j = 0; j < kN; ++j) {
      const Vector column = load<Vector>(b + j * b_pitch + done);
      for (int i = 0; i < kM; ++i) sum[i][j] += load<Vector>(a + i * k + done) * column;
    }
  for (int i = 0; i < kM; ++i)
    for (int j = 0; j < kN; ++j) {
      Word total = 0;
      for (int q = 0; q < kLanes; ++q) total += sum[i][j][q];
      for (int64_t rest = done; rest < k; ++rest) total += a[i * k + rest] * b[j * b_pitch + rest];
      c[i * c_pitch + j] = total;
    }
}

template <int kM>
void all_dots_of(const Word* a, int64_t k, const Word* b, int64_t b_pitch, int64_t n, Word* c,
                 int64_t c_pitch) {
  int64_t j = 0;
  for (; j + 4 <= n; j += 4) dots_of<kM, 4>(a, k, b + j * b_pitch, b_pitch, c + j, c_pitch);
  for (; j < n; ++j) dots_of<kM, 1>(a, k, b + j * b_pitch, b_pitch, c + j, c_pitch);
}

}  // namespace

void few_rows(const Word* a, int m, int64_t k, const Word* b, int64_t b_pitch, int64_t n, Word* c,
              int64_t c_pitch) {
  switch (m) {
    case 1:
      return rows_of<1>(a, k, b, b_pitch, n, c, c_pitch);
    case 2:
      return rows_of<2>(a, k, b, b_pitch, n, c, c_pitch);
    case 3:
      return rows_of<3>(a, k, b, b_pitch, n, c, c_pitch);
    case 4:
      return rows_of<4>(a, k, b, b_pitch, n, c, c_pitch);
  }
}

void few_dots(const Word* a, int m, int64_t k, const Word* b, int64_t b_pitch, int64_t n, Word* c,
              int64_t c_pitch) {
  switch (m) {
    case 1:
      return all_dots_of<1>(a, k, b, b_pitch, n, c, c_pitch);
    case 2:
      return all_dots_of<2>(a, k, b, b_pitch, n, c, c_pitch);
    case 3:
      return all_dots_of<3>(a, k, b, b_pitch, n, c, c_pitch);
    case 4:
      return all_dots_of<4>(a, k, b, b_pitch, n, c, c_pitch);
  }
}

void depthwise(const Word* const* x, const Word* const* w, int taps, int64_t channels, int64_t multiplier,
               Word* out) {
  if (multiplier == 1) {
    each_lane(channels, [=](auto kind, int64_t c) {
      using T = decltype(kind);
      T sum = fill<T>(0);
      for (int t = 0; t < taps; ++t) sum += load<T>(x[t] + c) * load<T>(w[t] + c);
      store<T>(out + c, sum);
    });
    return;
  }
  for (int64_t c = 0; c < channels; ++c)
    each_lane(multiplier, [=](auto kind, int64_t m) {
      using T = decltype(kind);
      T sum = fill<T>(0);
      for (int t = 0; t < taps; ++t) sum += fill<T>(x[t][c]) * load<T>(w[t] + c * multiplier + m);
      store<T>(out + c * multiplier + m, sum);
    });
}

}  // namespace SHAREFLOW_ISA
}  // namespace shareflow
