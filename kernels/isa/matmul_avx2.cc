// Matrix products with AVX2, which has no 64-bit multiplication.
//
// With halves a = a1 2^32 + a0 and b = b1 2^32 + b0: a b = a0 b0 + 2^32 (a1 b0 + a0 b1) mod 2^64. The two
// sums are kept apart; of the second only the low 32 bits count, so one 32-bit multiplication of a with the
// swapped b gives both terms.

#include <immintrin.h>

#include "functions.h"
#include "panels.h"

namespace shareflow {
namespace SHAREFLOW_ISA {
namespace {

constexpr int kRows = 4;  // with more, compilers spill sums to memory
constexpr int kColumns = 4;

template <int kR>
void block(const Word* a, int64_t k, const Word* b, int64_t n, Word* c, int64_t c_pitch, bool accumulate) {
  __m256i low[kR], cross[kR];
  for (int r = 0; r < kR; ++r) low[r] = cross[r] = _mm256_setzero_si256();
  for (int64_t i = 0; i < k; ++i) {
    const __m256i row = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + i * kColumns));
    const __m256i swapped = _mm256_shuffle_epi32(row, 0xB1);
#pragma GCC unroll 4
    for (int r = 0; r < kR; ++r) {
      const __m256i x = _mm256_set1_epi64x(a[r * kPitch + i]);
      low[r] = _mm256_add_epi64(low[r], _mm256_mul_epu32(x, row));
      cross[r] = _mm256_add_epi32(cross[r], _mm256_mullo_epi32(x, swapped));
    }
  }
  for (int r = 0; r < kR; ++r) {
    const __m256i both = _mm256_add_epi32(cross[r], _mm256_srli_epi64(cross[r], 32));
    const __m256i sum = _mm256_add_epi64(low[r], _mm256_slli_epi64(both, 32));
    Word values[kColumns];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(values), sum);
    Word* to = c + r * c_pitch;
    for (int q = 0; q < kColumns && q < n; ++q) to[q] = values[q] + (accumulate ? to[q] : 0);
  }
}

using Block = void (*)(const Word*, int64_t, const Word*, int64_t, Word*, int64_t, bool);
constexpr Block kBlocks[kRows + 1] = {nullptr, &block<1>, &block<2>, &block<3>, &block<4>};

void multiply(const Word* a, int rows, int64_t k, const Word* packed, int64_t n, Word* c, int64_t c_pitch,
              bool accumulate) {
  for (int64_t j = 0; j < n; j += kColumns, packed += k * kColumns)
    kBlocks[rows](a, k, packed, n - j, c + j, c_pitch, accumulate);
}

}  // namespace

const Engine engine = {kRows, kDepth, kPitch, 256, &packed_words<kColumns>, &pack<kColumns>, &multiply};

}  // namespace SHAREFLOW_ISA
}  // namespace shareflow
